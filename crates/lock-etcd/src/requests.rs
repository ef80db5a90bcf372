//! The transactions of the lock, and what their answers say.

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use crate::names::queue_of;

/// Who stands directly before a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) place: String,
    /// Whether nobody is before that one. It stays so: nobody can get a place before one that is taken.
    pub(crate) first: bool,
}

/// How a claim's transaction was answered.
#[derive(Debug)]
pub(crate) enum Entered {
    /// It has a place since this revision, and who is before it, if somebody is.
    New { created: i64, ahead: Option<Ahead> },
    /// It had its place already: an earlier copy of the request was executed.
    Before { created: i64 },
    /// Requests must carry this fence now.
    Fenced(i64),
    /// It was to have the first place or none, and another has it.
    Busy,
}

/// Takes a place in the queue, at the end; or, if it may not `wait`, the first place or none.
///
/// The fence sorts out copies of the request that arrive after an undo; see [`leave_and_fence`].
pub(crate) fn enter(place: &str, fence: (&str, i64), lease: i64, wait: bool) -> Txn {
    let queue = queue_of(place);
    let mut conditions = vec![Compare::mod_revision(fence.0, CompareOp::Equal, fence.1)];
    let put = TxnOp::put(place, "", Some(PutOptions::new().with_lease(lease)));
    let mut then = vec![put];
    if wait {
        conditions.push(Compare::create_revision(place, CompareOp::Equal, 0));
        // The new place is the youngest, the next one is the predecessor, and the count tells if there are more.
        then.push(TxnOp::get(queue, Some(youngest_two())));
    } else {
        // True of every key of an empty range.
        conditions.push(Compare::create_revision(queue, CompareOp::Equal, 0).with_prefix());
    }
    let keys_only = || Some(GetOptions::new().with_keys_only());
    Txn::new()
        .when(conditions)
        .and_then(then)
        .or_else([TxnOp::get(place, keys_only()), TxnOp::get(fence.0, keys_only())])
}

fn youngest_two() -> GetOptions {
    GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, SortOrder::Descend)
        .with_limit(2)
        .with_keys_only()
}

pub(crate) fn entered(answer: &TxnResponse, fence: i64) -> Entered {
    let gets = gets(answer);
    if answer.succeeded() {
        let ahead = gets.first().and_then(|queue| {
            let [_, ahead] = queue.kvs() else { return None };
            Some(Ahead { place: text(ahead), first: queue.count() == 2 })
        });
        return Entered::New { created: revision(answer), ahead };
    }
    let found = |index: usize| gets.get(index).and_then(|get: &GetResponse| get.kvs().first());
    match (found(0), found(1).map_or(0, KeyValue::mod_revision)) {
        (Some(place), _) => Entered::Before { created: place.create_revision() },
        (None, present) if present != fence => Entered::Fenced(present),
        (None, _) => Entered::Busy,
    }
}

/// Gives up a place that was certainly entered once, and no copy of that request is under way.
pub(crate) fn leave(place: &str, created: i64) -> Txn {
    Txn::new()
        .when([Compare::create_revision(place, CompareOp::Equal, created)])
        .and_then([TxnOp::delete(place, None)])
}

/// Gives up a place of which copies of the request may still be under way: none of them is executed after this,
/// since all carry an older fence, and a lease that is over takes no keys.
pub(crate) fn leave_and_fence(place: &str, fence: &str, lease: i64) -> Txn {
    Txn::new().and_then([
        TxnOp::delete(place, None),
        TxnOp::put(fence, "", Some(PutOptions::new().with_lease(lease))),
    ])
}

/// Whether such a transaction ended the hold that began at `created`.
pub(crate) fn left(answer: &TxnResponse) -> bool {
    let deleted = answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Delete(delete) => Some(delete.deleted() > 0),
        _ => None,
    });
    answer.succeeded() && deleted == Some(true)
}

/// Succeeds if the place is still that of `created`. It counts as a write, so that a majority takes part in it: what
/// it would delete is not there.
pub(crate) fn verify(place: &str, created: i64) -> Txn {
    Txn::new()
        .when([Compare::create_revision(place, CompareOp::Equal, created)])
        .or_else([TxnOp::delete(place, None)])
}

/// Looks whether the place and the one ahead of it are there.
pub(crate) fn look_at(place: &str, ahead: &str, local: bool) -> Txn {
    Txn::new().and_then([get(place, local), get(ahead, local)])
}

/// Looks whether the place is there and who is ahead of it.
pub(crate) fn look_ahead(place: &str, created: i64, local: bool) -> Txn {
    let mut before = youngest_two().with_max_create_revision(created - 1);
    if local {
        before = before.with_serializable();
    }
    Txn::new().and_then([get(place, local), TxnOp::get(queue_of(place), Some(before))])
}

/// Who is directly before a place, by what a look ahead found.
pub(crate) fn ahead(before: &GetResponse) -> Option<Ahead> {
    let ahead = before.kvs().first()?;
    Some(Ahead { place: text(ahead), first: before.kvs().len() == 1 })
}

/// All places of a queue in their order.
pub(crate) fn eldest_first() -> GetOptions {
    GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_keys_only()
}

/// Any key of a range.
pub(crate) fn any_one() -> GetOptions {
    GetOptions::new().with_prefix().with_limit(1).with_keys_only()
}

/// Looks whether the place is there.
pub(crate) fn look(place: &str, local: bool) -> Txn {
    Txn::new().and_then([get(place, local)])
}

/// Looks whether all these places are there.
pub(crate) fn look_at_all<'a>(places: impl Iterator<Item = &'a str>) -> Txn {
    Txn::new().and_then(places.map(|place| get(place, false)).collect::<Vec<_>>())
}

fn get(key: &str, local: bool) -> TxnOp {
    let options = GetOptions::new().with_keys_only();
    TxnOp::get(key, Some(if local { options.with_serializable() } else { options }))
}

/// What the parts of a look found.
pub(crate) fn gets(answer: &TxnResponse) -> Vec<GetResponse> {
    let gets = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(get) => Some(get),
        _ => None,
    });
    gets.collect()
}

pub(crate) fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, |header| header.revision())
}

pub(crate) fn text(entry: &KeyValue) -> String {
    String::from_utf8_lossy(entry.key()).into_owned()
}
