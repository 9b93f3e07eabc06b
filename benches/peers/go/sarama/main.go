// Sarama: AsyncProducer, idempotent with one open request, which Sarama requires.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"peers/common"

	"github.com/IBM/sarama"
)

func main() {
	a := common.Flags()
	flag.Parse()
	c := sarama.NewConfig()
	c.ClientID = "bench"
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.MaxMessageBytes = a.Batch
	c.Producer.Flush.Frequency = time.Duration(a.Linger) * time.Millisecond
	if a.Linger > 0 {
		c.Producer.Flush.Bytes = a.Batch
	}
	c.Producer.Compression = sarama.CompressionNone
	if a.Compression == "snappy" {
		c.Producer.Compression = sarama.CompressionSnappy
	}
	p, err := sarama.NewAsyncProducer([]string{a.Bootstrap}, c)
	if err != nil {
		panic(err)
	}
	pool, keys := common.Pool(a.Size, a.PoolN), common.Keys(a.Keys)
	k := int64(a.Keys)
	h := common.NewHist()
	base := time.Now()
	var acked, errs int64
	// run drains acks until n are answered
	drain := func(n int64) chan struct{} {
		done := make(chan struct{})
		go func() {
			suc, er := p.Successes(), p.Errors()
			for n > 0 {
				select {
				case s := <-suc:
					acked++
					if t, ok := s.Metadata.(int64); ok {
						h.RecordValue(int64(time.Since(base)) - t)
					}
				case e := <-er:
					if errs++; errs < 5 {
						fmt.Fprintln(os.Stderr, "delivery:", e.Err)
					}
				}
				n--
			}
			close(done)
		}()
		return done
	}
	in := p.Input()
	send := func(i int64, sample bool) {
		m := &sarama.ProducerMessage{Topic: a.Topic, Key: sarama.ByteEncoder(keys[i%k]), Value: sarama.ByteEncoder(pool[common.ValueIndex(i, int64(a.PoolN))])}
		if sample {
			m.Metadata = int64(time.Since(base))
		}
		in <- m
	}
	d := drain(a.Warmup)
	for i := int64(0); i < a.Warmup; i++ {
		send(i, false)
	}
	<-d
	if errs != 0 {
		panic("warm-up failed")
	}
	acked = 0

	m := common.Start()
	d = drain(a.Messages)
	a.SendAll(send)
	<-d
	v := "?"
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, d := range bi.Deps {
			if d.Path == "github.com/IBM/sarama" {
				v = d.Version
			}
		}
	}
	m.Finish("sarama", v, a, acked, errs, h, fmt.Sprintf("one open request, channels of %d records", c.ChannelBufferSize))
	p.Close()
}
