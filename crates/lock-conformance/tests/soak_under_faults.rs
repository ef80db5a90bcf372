//! Many clients contend while every request may fail in every way; what they believed is then compared.

use std::{env, sync::Arc, time::Duration};

use lock_conformance::{Fault, Faults, FaultyStore, MemoryServer, MemoryStore, Operation};
use lock_core::{
    ErrorKind, FencingToken, Key, Locker, Options,
    backend::{BootInstant, Leased},
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time};

const MS: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_millis(400);
const LENGTH: Duration = Duration::from_secs(6);

/// A seed to begin with, to repeat a run as far as chance allows.
const SEED: &str = "LOCK_CONFORMANCE_SEED";

/// One hold, as its holder saw it.
#[derive(Clone, Debug)]
struct Stay {
    key: Key,
    called: BootInstant,
    entered: BootInstant,
    /// When the holder asked for the last time and was told that it held.
    believed: BootInstant,
    lost: bool,
    token: FencingToken,
}

/// Under all faults at once no two clients believe at one time, tokens keep their order, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exclusion_and_token_order_survive_all_faults() {
    let seed = env::var(SEED).map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"));
    println!("{SEED}={seed}");
    let (server, faults) = (MemoryServer::default(), faults(seed));
    let keys = ["a", "b", "c", "d", "e"].map(|name| Key::new(name).unwrap());
    let options = Options::default()
        .with_ttl(TTL)
        .with_renew_every(TTL / 6)
        .with_request_timeout(TTL / 6)
        .with_min_validity(TTL / 4);
    let (stays, mut lockers, mut tasks) = (Arc::new(Mutex::new(Vec::new())), Vec::new(), JoinSet::new());
    for client in 0..4 {
        let store = FaultyStore::new(MemoryStore::new(&server), faults.clone());
        let locker = Locker::new(Leased::new(store, &options).unwrap());
        for task in 0..2 {
            let dice = StdRng::seed_from_u64(seed.wrapping_add(2 * client + task));
            tasks.spawn(contend(locker.clone(), keys.clone(), dice, Arc::clone(&stays)));
        }
        lockers.push(locker);
    }
    tasks.join_all().await;
    faults.cease();
    for locker in &lockers {
        time::timeout(10 * TTL, locker.close()).await.expect("close ends once the faults have ceased");
    }
    let stays = stays.lock();
    let lost = stays.iter().filter(|stay| stay.lost).count();
    println!("{} holds, {lost} of them lost", stays.len());
    assert!(stays.len() >= 100 && lost > 0, "too little happened to say anything");
    for key in &keys {
        assert_eq!(server.traces(key), 0, "at the end nothing is left of {key:?}");
        check(stays.iter().filter(|stay| stay.key == *key).collect());
    }
}

fn faults(seed: u64) -> Faults {
    let faults = Faults::seeded(seed);
    for operation in [Operation::Acquire, Operation::Renew, Operation::Release, Operation::Undo] {
        for fault in
            [Fault::Delay(20 * MS), Fault::Delay(TTL / 2), Fault::Error, Fault::LoseReply, Fault::Hang]
        {
            faults.by_chance(operation, fault, 0.03);
        }
    }
    // Enough for a long stay to end in a loss now and then.
    faults.by_chance(Operation::Renew, Fault::Error, 0.95);
    faults
}

async fn contend(
    locker: Locker<Leased<FaultyStore<MemoryStore>>>,
    keys: [Key; 5],
    mut dice: StdRng,
    stays: Arc<Mutex<Vec<Stay>>>,
) {
    let start = BootInstant::now();
    while BootInstant::now().since(start) < LENGTH {
        let key = &keys[dice.random_range(0..keys.len())];
        let called = BootInstant::now();
        let patience = dice.random_range(1..100) * MS;
        match time::timeout(patience, locker.try_lock(key.as_str())).await {
            Ok(Ok(Some(guard))) => {
                let entered = BootInstant::now();
                let long = dice.random_bool(0.05);
                let leave = entered.after(if long { 2 * TTL } else { dice.random_range(0..20) * MS });
                let (mut believed, mut lost) = (entered, false);
                while !lost && BootInstant::now() < leave {
                    let asked = BootInstant::now();
                    if guard.is_held() {
                        believed = asked;
                        // why: the work that the lock protects
                        time::sleep(MS).await;
                    } else {
                        lost = true;
                    }
                }
                let token = guard.fencing_token();
                stays.lock().push(Stay { key: key.clone(), called, entered, believed, lost, token });
                if dice.random_bool(0.5) {
                    let _ = guard.release().await;
                }
            }
            Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            // why: a pause between tries
            Ok(Ok(None)) | Err(_) => time::sleep(dice.random_range(1..5) * MS).await,
        }
    }
}

fn check(mut stays: Vec<&Stay>) {
    stays.sort_by_key(|stay| stay.entered);
    for pair in stays.windows(2) {
        assert!(pair[0].believed <= pair[1].entered, "two believed at one time: {:#?}", pair);
    }
    for later in &stays {
        for earlier in stays.iter().filter(|earlier| earlier.entered < later.called) {
            assert!(earlier.token < later.token, "tokens must keep the order: {earlier:#?}, then {later:#?}");
        }
    }
}
