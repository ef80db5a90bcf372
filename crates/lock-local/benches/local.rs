//! The cost of one lock and release, beside two other keyed locks and, as the floor, a mutex that has no keys.
//!
//! Each gets the key in the form that is cheapest for it: `lock-local` copies it, the others borrow it for ever.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use keyed_lock::r#async::KeyedLock;
use lock_local::LocalLocker;
use lockable::{AsyncLimit, LockableHashMap};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex,
    task::yield_now,
};

type Name = &'static str;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime without I/O and timer")
}

/// A lock as the bench sees it.
trait Contender: Sync {
    fn new() -> Self;
    async fn locked(&self, key: Name, inside: impl Future<Output = ()>);
}

impl Contender for LocalLocker {
    fn new() -> Self {
        Self::new()
    }

    async fn locked(&self, key: Name, inside: impl Future<Output = ()>) {
        let guard = self.lock(key).await.expect("open, and a good key");
        black_box(&guard);
        inside.await;
    }
}

impl Contender for LockableHashMap<Name, ()> {
    fn new() -> Self {
        Self::new()
    }

    async fn locked(&self, key: Name, inside: impl Future<Output = ()>) {
        let guard = self.async_lock(key, AsyncLimit::no_limit()).await.expect("no limit");
        black_box(&guard);
        inside.await;
    }
}

impl Contender for KeyedLock<Name> {
    fn new() -> Self {
        Self::new()
    }

    async fn locked(&self, key: Name, inside: impl Future<Output = ()>) {
        let guard = self.lock(key).await;
        black_box(&guard);
        inside.await;
    }
}

impl Contender for Mutex<()> {
    fn new() -> Self {
        Self::new(())
    }

    async fn locked(&self, key: Name, inside: impl Future<Output = ()>) {
        black_box(key);
        let guard = self.lock().await;
        black_box(&guard);
        inside.await;
    }
}

/// One task, one key after the other.
fn in_turn<C: Contender>(keys: &[Name], locks: u64) -> Duration {
    let contender = C::new();
    runtime().block_on(async {
        let mut keys = keys.iter().cycle();
        let start = Instant::now();
        for _ in 0..locks {
            contender.locked(black_box(keys.next().expect("a cycle does not end")), async {}).await;
        }
        start.elapsed()
    })
}

/// Two threads, each with a key of its own or both with the same.
fn two_threads<C: Contender>(keys: [Name; 2], locks: u64) -> Duration {
    let contender = C::new();
    let ready = Barrier::new(keys.len());
    let work = |key| {
        runtime().block_on(async {
            ready.wait();
            let start = Instant::now();
            for _ in 0..locks / 2 {
                contender.locked(black_box(key), async {}).await;
            }
            start.elapsed()
        })
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| work(keys[1]));
        work(keys[0]).max(other.join().expect("the other thread's work does not panic"))
    })
}

/// Two tasks of one thread that hand one key to each other.
fn two_tasks<C: Contender>(key: Name, locks: u64) -> Duration {
    let contender = C::new();
    let work = async || {
        for _ in 0..locks / 2 {
            contender.locked(black_box(key), yield_now()).await;
        }
    };
    runtime().block_on(async {
        let start = Instant::now();
        tokio::join!(work(), work());
        start.elapsed()
    })
}

fn benches(criterion: &mut Criterion) {
    let many: Vec<Name> = (0..10_000).map(|n| &*format!("orders/{n}").leak()).collect();
    let one = many[42];
    let two = [many[42], many[43]];

    macro_rules! group {
        ($name:literal, $measure:ident($keys:expr)) => {{
            let mut group = criterion.benchmark_group($name);
            group.bench_function("lock-local", |b| {
                b.iter_custom(|locks| $measure::<LocalLocker>($keys, locks))
            });
            group.bench_function("keyed-lock", |b| {
                b.iter_custom(|locks| $measure::<KeyedLock<Name>>($keys, locks))
            });
            group.bench_function("lockable", |b| {
                b.iter_custom(|locks| $measure::<LockableHashMap<Name, ()>>($keys, locks))
            });
            group.bench_function("tokio, no keys", |b| {
                b.iter_custom(|locks| $measure::<Mutex<()>>($keys, locks))
            });
        }};
    }
    group!("one key", in_turn(&[one]));
    group!("10,000 keys in turn", in_turn(&many));
    group!("two threads, one key", two_threads([one, one]));
    group!("two threads, two keys", two_threads(two));
    group!("two tasks, one key", two_tasks(one));
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(800))
}

criterion_group! { name = local; config = config(); targets = benches }
criterion_main!(local);
