//! The names that are locked.

use std::fmt;

use compact_str::CompactString;

use crate::{Error, ErrorKind, Result};

/// The name that is locked: any UTF-8 text of 1 to [`MAX_LEN`](Self::MAX_LEN) bytes.
///
/// Keys are compared byte by byte: `a` and `A`, or a precomposed and a combined `é`, are different locks.
/// Slashes, dots, line ends and NUL are ordinary text here; a backend encodes them so that two different keys
/// never share a lock and none leaves its prefix.
///
/// # Examples
///
/// ```
/// use lock_core::{ErrorKind, Key};
///
/// assert_eq!(Key::new("orders/42")?.as_str(), "orders/42");
/// assert_eq!(Key::new("").unwrap_err().kind(), ErrorKind::InvalidInput);
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(CompactString);

impl Key {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Checks `name` and makes it a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: `name` is empty or longer than [`MAX_LEN`](Self::MAX_LEN) bytes.
    #[inline]
    pub fn new(name: &str) -> Result<Self> {
        match name.len() {
            1..=Self::MAX_LEN => Ok(Self(CompactString::new(name))),
            len => Err(wrong_length(len)),
        }
    }

    /// Returns the key as it was given.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key with every byte that `keep` refuses written as `%` and two upper-case hex digits.
    ///
    /// Different keys have different encodings, since `%` itself is always encoded. Bytes that are not ASCII
    /// are always encoded too.
    ///
    /// # Examples
    ///
    /// ```
    /// use lock_core::Key;
    ///
    /// let key = Key::new("a/{b}%")?;
    /// assert_eq!(key.percent_encoded(|byte| byte.is_ascii_alphanumeric() || byte == b'/'), "a/%7Bb%7D%25");
    /// # Ok::<(), lock_core::Error>(())
    /// ```
    #[must_use]
    pub fn percent_encoded(&self, keep: impl Fn(u8) -> bool) -> String {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut encoded = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii() && byte != b'%' && keep(byte) {
                encoded.push(char::from(byte));
            } else {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                encoded.extend(['%', char::from(digits[0]), char::from(digits[1])]);
            }
        }
        encoded
    }

    /// Returns the key that [`percent_encoded`](Self::percent_encoded) made `encoded` of; `None` if it made none such.
    #[cfg(feature = "movable")]
    #[must_use]
    pub fn from_percent_encoded(encoded: &str) -> Option<Self> {
        let (mut name, mut rest) = (Vec::with_capacity(encoded.len()), encoded.as_bytes());
        while let [first, others @ ..] = rest {
            rest = others;
            if *first != b'%' {
                name.push(*first);
                continue;
            }
            let (digits, others) = others.split_at_checked(2)?;
            name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = others;
        }
        Self::new(std::str::from_utf8(&name).ok()?).ok()
    }
}

#[cold]
fn wrong_length(len: usize) -> Error {
    let problem = if len == 0 {
        "the key is empty; name what is to be locked".to_owned()
    } else {
        let most = Key::MAX_LEN;
        format!("the key has {len} bytes and at most {most} are allowed; lock a digest of it instead")
    };
    Error::new(ErrorKind::InvalidInput, problem).without_effect()
}

/// Quoted, escaped and cut to a length that suits a log line.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0.as_str()),
            Some((end, _)) => write!(f, "{:?}… ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(encoded: &str) -> Vec<u8> {
        let mut bytes = encoded.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                decoded.push(byte);
            }
        }
        decoded
    }

    proptest! {
        #[test]
        fn encoding_can_be_undone_and_so_is_injective(name in "\\PC{1,40}|[%/.{}a\\x00\\r\\n]{1,10}") {
            let encoded = Key::new(&name).unwrap().percent_encoded(|byte| byte.is_ascii_alphanumeric());
            prop_assert_eq!(decode(&encoded), name.as_bytes());
            #[cfg(feature = "movable")]
            prop_assert_eq!(Key::from_percent_encoded(&encoded).unwrap(), Key::new(&name).unwrap());
        }
    }

    #[test]
    fn lengths_are_checked() {
        assert!(Key::new(&"x".repeat(Key::MAX_LEN)).is_ok());
        let error = Key::new(&"x".repeat(2 << 20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().len() < 200, "the message does not repeat the key");
    }

    #[test]
    fn debug_is_one_short_line() {
        let shown = format!("{:?}", Key::new(&"line\r\n".repeat(100)).unwrap());
        assert!(shown.starts_with("\"line\\r\\nline") && shown.ends_with("… (600 bytes)"), "{shown}");
        assert!(!shown.contains('\n'));
    }
}
