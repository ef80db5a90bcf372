//! What the lockers and the targets of all backends have in common.

/// Makes a struct around a [`Locker`] dereference to it, and turn into an [`AnyLocker`](crate::AnyLocker).
#[doc(hidden)]
#[macro_export]
macro_rules! deref_to_locker {
    ($outer:ty, $backend:ty, $erase:ident) => {
        impl ::std::ops::Deref for $outer {
            type Target = $crate::Locker<$backend>;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl From<$outer> for $crate::AnyLocker {
            fn from(locker: $outer) -> Self {
                Self::$erase(locker.0)
            }
        }
    };
}

/// Makes a backend's target of the texts by which people name it; `$parse` is given a `&str`.
#[doc(hidden)]
#[macro_export]
macro_rules! target_from_text {
    ($target:ty, $parse:expr) => {
        $crate::target_from_text!($target, $parse, &str, &String, String);
    };
    ($target:ty, $parse:expr, $($text:ty),*) => {$(
        impl TryFrom<$text> for $target {
            type Error = $crate::Error;

            fn try_from(text: $text) -> $crate::Result<Self> {
                $parse(&text[..])
            }
        }
    )*};
}
