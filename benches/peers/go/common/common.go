// Package common holds the code that both Go generators share: flags, data, pacing, and the line of figures.
//
// Flags, data and line are the same in every language.
package common

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

type Args struct {
	Bootstrap, Topic, Compression              string
	Messages, Rate, Warmup                     int64
	Size, Keys, Linger, Batch, Inflight, PoolN int
	Threads                                    int64
}

func Flags() *Args {
	a := &Args{}
	flag.StringVar(&a.Bootstrap, "bootstrap", "127.0.0.1:19092", "")
	flag.StringVar(&a.Topic, "topic", "bench", "")
	flag.Int64Var(&a.Messages, "messages", 100000, "")
	flag.IntVar(&a.Size, "size", 100, "")
	flag.IntVar(&a.Keys, "keys", 1000, "")
	flag.StringVar(&a.Compression, "compression", "none", "none|snappy")
	flag.IntVar(&a.Linger, "linger-ms", 5, "")
	flag.IntVar(&a.Batch, "batch-bytes", 1<<20, "")
	flag.IntVar(&a.Inflight, "inflight", 5, "")
	flag.Int64Var(&a.Rate, "rate", 0, "")
	flag.IntVar(&a.PoolN, "pool", 1000, "how many different values")
	flag.Int64Var(&a.Warmup, "warmup", 1000, "")
	flag.Int64Var(&a.Threads, "threads", 1, "goroutines that produce")
	return a
}

const al = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Pool returns n values of size bytes, byte for byte the same in every generator.
func Pool(size, n int) [][]byte {
	s := uint64(42)
	out := make([][]byte, n)
	for i := range out {
		// The exact capacity. Spare capacity from doubling would count as the client's memory.
		v := fmt.Appendf(make([]byte, 0, max(size, 64)), `{"id":%08d,"type":"click","data":"`, i)
		for len(v)+2 < size {
			s += 0x9E3779B97F4A7C15
			z := s
			z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
			z = (z ^ (z >> 27)) * 0x94D049BB133111EB
			z ^= z >> 31
			v = append(v, al[(z>>33)%62])
		}
		v = append(v, '"', '}')
		out[i] = v[:size]
	}
	return out
}

func Keys(k int) [][]byte {
	out := make([][]byte, k)
	for i := range out {
		out[i] = []byte(fmt.Sprintf("key-%d", i))
	}
	return out
}

func ValueIndex(i, n int64) int64 { return (i + 337*(i/n)) % n }

func (a *Args) Sampled(i int64) bool { return a.Rate > 0 || i%100 == 0 }

type Pacer struct {
	start time.Time
	rate  int64
}

func NewPacer(rate int64) *Pacer { return &Pacer{time.Now(), rate} }

// Due returns how many messages are due by now. It sleeps, about a millisecond at a time, until more than sent are.
func (p *Pacer) Due(sent, total int64) int64 {
	for {
		el := time.Since(p.start)
		d := min(int64(el.Seconds()*float64(p.rate))+1, total)
		if d > sent {
			return d
		}
		next := time.Duration(float64(sent) / float64(p.rate) * 1e9)
		time.Sleep(max(next-el, time.Millisecond))
	}
}

// SendAll makes every thread send its share of the messages, paced if a rate is set. The arguments of send are a
// message's number and whether its latency is measured.
func (a *Args) SendAll(send func(i int64, sampled bool)) {
	var wait sync.WaitGroup
	for thread := range a.Threads {
		wait.Go(func() { a.sendShare(thread, send) })
	}
	wait.Wait()
}

func (a *Args) sendShare(thread int64, send func(i int64, sampled bool)) {
	share := a.Messages / a.Threads
	pacer := NewPacer(max(a.Rate/a.Threads, 1))
	for sent := int64(0); sent < share; {
		due := share
		if a.Rate > 0 {
			due = pacer.Due(sent, share)
		}
		for ; sent < due; sent++ {
			i := sent*a.Threads + thread
			send(i, a.Sampled(i))
		}
	}
}

func NewHist() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000_000, 3) }

type Usage struct{ user, sys, rss float64 }

func GetUsage() Usage {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	f := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return Usage{f(r.Utime), f(r.Stime), float64(r.Maxrss) / 1024}
}

type Measure struct {
	t0 time.Time
	u0 Usage
}

func Start() *Measure { u := GetUsage(); return &Measure{time.Now(), u} }

func (m *Measure) Finish(peer, version string, a *Args, acked, errors int64, h *hdrhistogram.Histogram, note string) {
	wall := time.Since(m.t0).Seconds()
	u := GetUsage()
	us, sy := u.user-m.u0.user, u.sys-m.u0.sys
	q := func(p float64) float64 { return float64(h.ValueAtQuantile(p)) / 1e6 }
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"peer": peer, "version": version, "messages": a.Messages, "acked": acked, "errors": errors,
		"size": a.Size, "compression": a.Compression, "wall_s": wall, "msgs_per_s": float64(acked) / wall,
		"user_s": us, "sys_s": sy, "cpu_us_per_msg": (us + sy) * 1e6 / float64(a.Messages), "max_rss_mb": u.rss,
		"p50_ms": q(50), "p99_ms": q(99), "p999_ms": q(99.9), "max_ms": float64(h.Max()) / 1e6,
		"samples": h.TotalCount(), "warmup": a.Warmup,
		"t_start": float64(m.t0.UnixNano()) / 1e9, "t_end": float64(time.Now().UnixNano()) / 1e9, "note": note,
	})
}
