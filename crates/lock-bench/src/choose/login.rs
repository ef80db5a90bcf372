//! A user and a password in an address. Errors repeat addresses, so both are taken out before anything else.

use std::fmt;

use anyhow::{Context, Result};
use percent_encoding::percent_decode_str;

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The secret.
    pub password: String,
}

impl Login {
    /// Takes it out of `address`, in which it stands as `user:password@`, percent-encoded, behind the scheme if there
    /// is one.
    ///
    /// # Errors
    ///
    /// There is a name without a password, or what is encoded is no text.
    pub fn take_out(address: &str) -> Result<(String, Option<Self>)> {
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), address),
        };
        let Some((told, server)) = rest.rsplit_once('@') else { return Ok((address.to_owned(), None)) };
        let server = format!("{scheme}{server}");
        let (user, password) = told
            .split_once(':')
            .with_context(|| format!("a user for {server} needs a password: write user:password@"))?;
        let decoded = |text: &str| -> Result<String> {
            let text = percent_decode_str(text).decode_utf8();
            Ok(text.context("a user or password is not percent-encoded UTF-8")?.into_owned())
        };
        Ok((server, Some(Self { user: decoded(user)?, password: decoded(password)? })))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Login;

    fn taken(address: &str) -> (String, Option<(String, String)>) {
        let (server, login) = Login::take_out(address).unwrap();
        (server, login.map(|login| (login.user, login.password)))
    }

    #[test]
    fn a_login_is_taken_out_of_an_address() {
        let ann = Some(("ann".to_owned(), "a,b@c".to_owned()));
        assert_eq!(taken("http://ann:a%2Cb%40c@db:2379"), ("http://db:2379".to_owned(), ann.clone()));
        assert_eq!(taken("ann:a%2Cb@c@db:2181/shop"), ("db:2181/shop".to_owned(), ann));
        assert_eq!(taken("db:2181"), ("db:2181".to_owned(), None));
    }

    #[test]
    fn errors_and_debug_keep_the_password() {
        let error = Login::take_out("http://ann@db:2379").unwrap_err().to_string();
        assert!(error.contains("db:2379") && error.contains("needs a password"), "{error}");
        let login = Login::take_out("ann:secret@db").unwrap().1;
        assert!(!format!("{login:?}").contains("secret"));
    }
}
