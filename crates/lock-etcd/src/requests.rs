//! The transactions of the lock, and what their answers say.

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use lock_core::backend::{Position, Predecessor};

use crate::{
    gate::{Gate, NotOpen},
    names::queue_of,
};

/// How a claim's transaction was answered.
#[derive(Debug)]
pub(crate) enum EnterReply {
    /// It has an entry since this revision, in a queue of which so many are before it.
    New { created: i64, position: Position, before: i64 },
    /// It had its entry already: an earlier copy of the request was executed.
    Before { created: i64 },
    /// Requests must carry this fence now.
    Fenced(i64),
    /// It was to be the first or nothing, and another is.
    Busy,
    /// The slot of the key is not open as was expected.
    NotOpen(NotOpen),
}

/// Puts an entry at the end of its queue; or, if it may not `wait`, only into an empty one.
///
/// The fence sorts out copies of the request that arrive after an undo; see [`leave_and_fence`].
pub(crate) fn enter(entry: &str, fence: (&str, i64), lease: i64, wait: bool, gate: &Gate) -> Txn {
    let queue = queue_of(entry);
    let mut conditions = vec![Compare::mod_revision(fence.0, CompareOp::Equal, fence.1)];
    let put = TxnOp::put(entry, gate.value(), Some(PutOptions::new().with_lease(lease)));
    let mut then = vec![put];
    if wait {
        conditions.push(Compare::create_revision(entry, CompareOp::Equal, 0));
        // The new entry is the youngest, the next one is the predecessor, and the count tells if there are more.
        then.push(TxnOp::get(queue, Some(youngest_two())));
    } else {
        // True of every key of an empty range.
        conditions.push(Compare::create_revision(queue, CompareOp::Equal, 0).with_prefix());
    }
    conditions.extend(gate.condition());
    let keys_only = || Some(GetOptions::new().with_keys_only());
    let mut otherwise = vec![TxnOp::get(entry, keys_only()), TxnOp::get(fence.0, keys_only())];
    otherwise.extend(gate.look(false));
    Txn::new().when(conditions).and_then(then).or_else(otherwise)
}

fn youngest_two() -> GetOptions {
    GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, SortOrder::Descend)
        .with_limit(2)
        .with_keys_only()
}

pub(crate) fn entered(answer: &TxnResponse, fence: i64, gate: &Gate) -> EnterReply {
    let gets = gets(answer);
    if answer.succeeded() {
        let before = gets.first().map_or(0, |queue| queue.count() - 1);
        let predecessor = gets.first().and_then(|queue| {
            let [_, predecessor] = queue.kvs() else { return None };
            Some(Predecessor { name: text(predecessor), is_first: before == 1 })
        });
        let position = predecessor.map_or(Position::First, Position::Behind);
        return EnterReply::New { created: revision(answer), position, before };
    }
    let found = |index: usize| gets.get(index).and_then(|get: &GetResponse| get.kvs().first());
    match (found(0), found(1).map_or(0, KeyValue::mod_revision)) {
        (Some(entry), _) => EnterReply::Before { created: entry.create_revision() },
        (None, present) if present != fence => EnterReply::Fenced(present),
        (None, _) => gate.check(gets.get(2)).map_or_else(EnterReply::NotOpen, |()| EnterReply::Busy),
    }
}

/// Deletes an entry that was certainly made once, and of which no copy of the request is under way.
pub(crate) fn leave(entry: &str, created: i64) -> Txn {
    Txn::new()
        .when([Compare::create_revision(entry, CompareOp::Equal, created)])
        .and_then([TxnOp::delete(entry, None)])
}

/// Deletes an entry of which copies of the request may still be under way: none of them is executed after this, since
/// all carry an older fence, and a lease that is over takes no keys. If it `spares_copies`, what has no lease stays:
/// the copy of a hold that has come back.
pub(crate) fn leave_and_fence(entry: &str, fence: &str, lease: i64, spares_copies: bool) -> Txn {
    let fence = TxnOp::put(fence, "", Some(PutOptions::new().with_lease(lease)));
    let leave = [TxnOp::delete(entry, None), fence.clone()];
    if !spares_copies {
        return Txn::new().and_then(leave);
    }
    Txn::new().when([Compare::lease(entry, CompareOp::Greater, 0)]).and_then(leave).or_else([fence])
}

/// Deletes an entry, if it is there; a full database takes this too.
pub(crate) fn delete(entry: &str) -> Txn {
    Txn::new().and_then([TxnOp::delete(entry, None)])
}

/// Returns whether such a transaction deleted the entry.
pub(crate) fn left(answer: &TxnResponse) -> bool {
    let deleted = answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Delete(delete) => Some(delete.deleted() > 0),
        _ => None,
    });
    answer.succeeded() && deleted == Some(true)
}

/// Succeeds if the entry is still that of `created`. It counts as a write, so that a majority takes part in it: what
/// it would delete is not there.
pub(crate) fn verify(entry: &str, created: i64) -> Txn {
    Txn::new()
        .when([Compare::create_revision(entry, CompareOp::Equal, created)])
        .or_else([TxnOp::delete(entry, None)])
}

/// Looks whether the entry is there.
pub(crate) fn look(entry: &str, gate: &Gate, local: bool) -> Txn {
    Txn::new().and_then(gate.look(local).into_iter().chain([get(entry, local)]).collect::<Vec<_>>())
}

/// Looks whether the entry is there and who is before it.
pub(crate) fn look_ahead(entry: &str, created: i64, gate: &Gate, local: bool) -> Txn {
    let mut before = youngest_two().with_max_create_revision(created - 1);
    if local {
        before = before.with_serializable();
    }
    let looks = [get(entry, local), TxnOp::get(queue_of(entry), Some(before))];
    Txn::new().and_then(gate.look(local).into_iter().chain(looks).collect::<Vec<_>>())
}

/// Returns where the entry that was made at `created` stands, by what such a look found.
pub(crate) fn position(answer: &TxnResponse, created: i64, gate: &Gate) -> Result<Position, NotOpen> {
    let mut found = gets(answer);
    if gate.is_there() {
        gate.check(Some(&found.remove(0)))?;
    }
    let is_there = found.first().is_some_and(|own| is_older(own, created + 1));
    Ok(match (is_there, found.get(1).map(GetResponse::kvs)) {
        (false, _) => Position::Gone,
        (true, None | Some([])) => Position::First,
        (true, Some(before @ [predecessor, ..])) => {
            Position::Behind(Predecessor { name: text(predecessor), is_first: before.len() == 1 })
        }
    })
}

/// Looks whether all these keys are there. A server that is cut off from the others cannot answer.
pub(crate) fn look_at_all<'a>(keys: impl Iterator<Item = &'a str>) -> Txn {
    Txn::new().and_then(keys.map(|key| get(key, false)).collect::<Vec<_>>())
}

/// Asks for all entries of a queue in their order.
pub(crate) fn eldest_first() -> GetOptions {
    GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_keys_only()
}

fn get(key: &str, local: bool) -> TxnOp {
    let options = GetOptions::new().with_keys_only();
    TxnOp::get(key, Some(if local { options.with_serializable() } else { options }))
}

/// Returns what the parts of a look found.
pub(crate) fn gets(answer: &TxnResponse) -> Vec<GetResponse> {
    let gets = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(get) => Some(get),
        _ => None,
    });
    gets.collect()
}

/// Returns whether a key was found that was made before the revision `before`: its name may have been used again.
pub(crate) fn is_older(found: &GetResponse, before: i64) -> bool {
    found.kvs().first().is_some_and(|found| found.create_revision() < before)
}

pub(crate) fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, |header| header.revision())
}

pub(crate) fn text(entry: &KeyValue) -> String {
    String::from_utf8_lossy(entry.key()).into_owned()
}

#[cfg(feature = "movable")]
pub(crate) fn value(entry: &KeyValue) -> String {
    String::from_utf8_lossy(entry.value()).into_owned()
}
