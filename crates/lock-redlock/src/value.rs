//! What servers keep under the name of a lock whose slot can move: `<owner id>:<number>@<epoch>`, where number and
//! epoch are those of the token; of the copy of a hold that was not taken over yet, also `=<epoch>:copy:<from>:<move>`,
//! with the epoch in which it can be; and a `+` at the end if somebody waits for it.

use lock_core::{
    FencingToken, Key,
    backend::OwnerId,
    movable::{CopyLabel, Epoch, SlotHold},
};
use lock_redis::{held, read_held};

/// One vote for a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) owner: OwnerId,
    pub(crate) token: FencingToken,
    pub(crate) copy: Option<Copied>,
}

/// What a copy says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// The epoch in which it can be taken over.
    pub(crate) epoch: Epoch,
    pub(crate) label: CopyLabel,
}

impl Value {
    /// Reads what servers keep; `None` if it is something else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('+').unwrap_or(text);
        let (hold, copy) = text.split_once('=').map_or((text, None), |(hold, copy)| (hold, Some(copy)));
        let (owner, token) = read_held(hold)?;
        let read_copy = |copy: &str| {
            let (epoch, label) = copy.split_once(':')?;
            Some(Copied { epoch: Epoch::new(epoch.parse().ok()?)?, label: CopyLabel::parse(label)? })
        };
        let copy = match copy {
            Some(copy) => Some(read_copy(copy)?),
            None => None,
        };
        Some(Self { owner, token, copy })
    }

    /// Makes that of a hold of `key`.
    pub(crate) fn into_hold(self, key: Key) -> SlotHold {
        let Self { owner, token, copy } = self;
        SlotHold { key, owner, token, copy: copy.map(|copy| copy.label) }
    }
}

/// Returns what is kept of a copy that can be taken over in `epoch`; `None` if it has no label.
pub(crate) fn copied(hold: &SlotHold, epoch: Epoch) -> Option<String> {
    hold.copy.as_ref().map(|label| format!("{}={epoch}:{label}", held(hold.owner, hold.token)))
}

#[cfg(test)]
mod tests {
    use lock_core::movable::MoveId;

    use super::*;

    const NUMBER: u64 = (1 << 53) - 1;

    #[test]
    fn a_hold_and_its_copy_are_read_as_they_were_written() {
        let (epoch, next) = (Epoch::new(3).unwrap(), Epoch::new(1023).unwrap());
        let label = CopyLabel { from: "a.b-c_d".parse().unwrap(), id: MoveId::random() };
        let hold = SlotHold {
            key: Key::new("orders/42").unwrap(),
            owner: OwnerId::parse(&"0af".repeat(11)[..32]).unwrap(),
            token: epoch.token(FencingToken::new(NUMBER)).unwrap(),
            copy: Some(label.clone()),
        };
        let text = copied(&hold, next).unwrap();
        assert!(text.starts_with(&format!("{}:{NUMBER}@3=1023:copy:a.b-c_d:", hold.owner)), "{text}");
        for waited_for in ["", "+"] {
            let copy = Value::parse(&format!("{text}{waited_for}")).unwrap();
            assert_eq!(copy.copy, Some(Copied { epoch: next, label: label.clone() }));
            assert_eq!(copy.into_hold(hold.key.clone()), hold);
            let original = Value::parse(&format!("{}{waited_for}", held(hold.owner, hold.token))).unwrap();
            assert_eq!(original.into_hold(hold.key.clone()), SlotHold { copy: None, ..hold.clone() });
        }
        let owner = hold.owner;
        for bad in ["", "x", &format!("{owner}:7"), &format!("{owner}:7@1024"), &format!("{owner}:7@1=2:x")] {
            assert_eq!(Value::parse(bad), None, "{bad}");
        }
    }
}
