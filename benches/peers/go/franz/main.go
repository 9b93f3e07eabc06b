// franz-go: Client.Produce with promises, idempotent with five requests in flight, as by default.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"peers/common"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	a := common.Flags()
	maxBytes := flag.Int("x-max-bytes", 64<<20, "MaxBufferedBytes")
	flag.Parse()
	codec := kgo.NoCompression()
	if a.Compression == "snappy" {
		codec = kgo.SnappyCompression()
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(a.Bootstrap),
		kgo.DefaultProduceTopic(a.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(time.Duration(a.Linger)*time.Millisecond),
		kgo.ProducerBatchMaxBytes(int32(a.Batch)),
		kgo.ProducerBatchCompression(codec),
		kgo.MaxBufferedRecords(10_000_000), // bytes are the limit
		kgo.MaxBufferedBytes(*maxBytes),
	)
	if err != nil {
		panic(err)
	}
	defer cl.Close()
	ctx := context.Background()
	pool, keys := common.Pool(a.Size, a.PoolN), common.Keys(a.Keys)
	k := int64(a.Keys)

	var acked, errs atomic.Int64
	h := common.NewHist()
	var hmu sync.Mutex
	base := time.Now()
	var target atomic.Int64
	done := make(chan struct{}, 1)
	finish := func() {
		if acked.Load()+errs.Load() == target.Load() {
			select {
			case done <- struct{}{}:
			default:
			}
		}
	}
	// two promises that capture nothing per message: franz-go returns the record itself
	promise := func(r *kgo.Record, err error) {
		if err != nil {
			if errs.Add(1) < 5 {
				fmt.Fprintln(os.Stderr, "delivery:", err)
			}
		} else {
			if t, ok := r.Context.Value(tkey{}).(int64); ok {
				d := int64(time.Since(base)) - t
				hmu.Lock()
				h.RecordValue(d)
				hmu.Unlock()
			}
			acked.Add(1)
		}
		finish()
	}
	send := func(i int64, sample bool) {
		r := &kgo.Record{Key: keys[i%k], Value: pool[common.ValueIndex(i, int64(a.PoolN))]}
		c := ctx
		if sample {
			c = &tctx{ctx, int64(time.Since(base))}
		}
		cl.Produce(c, r, promise)
	}
	target.Store(a.Warmup)
	for i := int64(0); i < a.Warmup; i++ {
		send(i, false)
	}
	if a.Warmup > 0 {
		<-done
	}
	if errs.Load() != 0 {
		panic("warm-up failed")
	}
	acked.Store(0)
	target.Store(a.Messages)

	m := common.Start()
	a.SendAll(send)
	<-done
	v := "?"
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, d := range bi.Deps {
			if d.Path == "github.com/twmb/franz-go" {
				v = d.Version
			}
		}
	}
	m.Finish("franz-go", v, a, acked.Load(), errs.Load(), h, fmt.Sprintf("buffer %d MiB", *maxBytes>>20))
}

type tkey struct{}

// tctx carries a send time without a map or a WithValue chain
type tctx struct {
	context.Context
	t int64
}

func (c *tctx) Value(k any) any {
	if _, ok := k.(tkey); ok {
		return c.t
	}
	return c.Context.Value(k)
}
