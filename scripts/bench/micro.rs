//! Times of the pure parts that every request passes. `cargo bench --bench micro` runs them.

#[path = "programs/path.rs"]
mod path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faas_worker::process::ids::IdDigits;
use faas_worker::process::line::{Framer, ProcessLine, RequestContext, encode_request, parse};
use path::{Case, Path};
use std::hint::black_box;

const SIZES: [usize; 3] = [32, 4 * 1024, 256 * 1024];

fn encoder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_request");
    for size in SIZES {
        let payload = "x".repeat(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{size} bytes"), |bencher| {
            let mut line = Vec::new();
            bencher.iter(|| {
                line.clear();
                let payload = black_box(payload.as_bytes());
                encode_request(
                    &mut line,
                    &IdDigits::new(1_234_567_890_123_456),
                    payload,
                    &RequestContext::default(),
                );
                black_box(line.len())
            });
        });
    }
    group.finish();
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Framer::feed");
    for size in SIZES {
        let line = reply(size);
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(format!("{size} bytes, one read"), |bencher| {
            let mut framer = Framer::new(8 * 1024 * 1024);
            bencher.iter(|| framer.feed(black_box(line.as_bytes()), consume));
        });
    }
    let line = reply(256 * 1024);
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("262144 bytes, reads of 64 KiB", |bencher| {
        let mut framer = Framer::new(8 * 1024 * 1024);
        bencher.iter(|| {
            for piece in black_box(line.as_bytes()).chunks(64 * 1024) {
                framer.feed(piece, consume);
            }
        });
    });
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for size in SIZES {
        let line = reply(size);
        let line = line.trim_end();
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(format!("result of {size} bytes"), |bencher| {
            bencher.iter(|| black_box(parse(black_box(line.as_bytes()))));
        });
    }
    let stray = b"working on dev-1, which has value 42";
    group.throughput(Throughput::Bytes(stray.len() as u64));
    group.bench_function("stray line", |bencher| {
        bencher.iter(|| black_box(parse(black_box(stray))));
    });
    group.finish();
}

fn conversation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a request's path");
    for case in [Case::Small, Case::Escaped, Case::Large] {
        let mut path = Path::new(case);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{case:?}"), |bencher| {
            bencher.iter_batched(|| (), |()| path.request(), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn consume(line: ProcessLine<'_>) {
    black_box(line);
}

fn reply(result_bytes: usize) -> String {
    format!(
        "{{\"id\":1234567,\"result\":\"{}\"}}\n",
        "x".repeat(result_bytes)
    )
}

criterion_group!(micro, encoder, framing, replies, conversation);
criterion_main!(micro);
