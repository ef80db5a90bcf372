//! What is kept of a hold whose slot can move, and how all holds of a slot are found.

use lock_core::{FencingToken, backend::OwnerId, movable::Epoch};

/// Returns what is kept of a hold: `<owner id>:<number>@<epoch>`, where number and epoch are those of its token.
#[must_use]
pub fn held(owner: OwnerId, token: FencingToken) -> String {
    format!("{owner}:{}@{}", Epoch::number_in(token), Epoch::of(token))
}

/// Reads what [`held`] returns; `None` if it is something else.
#[must_use]
pub fn read_held(text: &str) -> Option<(OwnerId, FencingToken)> {
    let (owner, token) = text.split_once(':')?;
    let (number, epoch) = token.split_once('@')?;
    let token = Epoch::new(epoch.parse().ok()?)?.token(FencingToken::new(number.parse().ok()?)).ok()?;
    Some((OwnerId::parse(owner)?, token))
}

/// Returns the pattern of all names that begin with `prefix`, which may have what patterns give a meaning.
#[must_use]
pub fn all_below(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        pattern.extend(matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\').then_some('\\'));
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_stands_there() {
        assert_eq!(all_below("a*[b]:{redslot:0f}:"), "a\\*\\[b\\]:{redslot:0f}:*");
        assert_eq!(all_below("a*[b]?\\{c}"), "a\\*\\[b\\]\\?\\\\{c}*");
    }
}
