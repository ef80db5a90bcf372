//! Access control lists, written as ZooKeeper's own command line writes them.

use lock_core::{Error, ErrorKind, Result};
use zookeeper_client::{Acl, AuthId, Permission};

/// Reads entries such as `world:anyone:r,auth::cdrw`: a scheme, an identity, and letters for what it may do.
pub(crate) fn parse(entries: &str) -> Result<Vec<Acl>> {
    entries.split(',').map(|entry| parse_entry(entry.trim())).collect()
}

fn parse_entry(entry: &str) -> Result<Acl> {
    let refuse = |problem: &str| {
        let message = format!(
            "{problem}: an entry of an ACL is scheme:identity:permissions, with permissions out of the letters cdrwa"
        );
        Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
    };
    // The identity may contain colons, as a digest does.
    let (Some((scheme, _)), Some((_, letters))) = (entry.split_once(':'), entry.rsplit_once(':')) else {
        return refuse("an entry has no colon");
    };
    let Some(identity) = entry.get(scheme.len() + 1..entry.len() - letters.len() - 1) else {
        return refuse("an entry has one colon only");
    };
    let mut permissions = Permission::NONE;
    for letter in letters.chars() {
        permissions = permissions
            | match letter {
                'c' => Permission::CREATE,
                'd' => Permission::DELETE,
                'r' => Permission::READ,
                'w' => Permission::WRITE,
                'a' => Permission::ADMIN,
                _ => return refuse("an entry names an unknown permission"),
            };
    }
    if scheme.is_empty() || permissions == Permission::NONE {
        return refuse("an entry names no scheme or no permission");
    }
    Ok(Acl::new(permissions, AuthId::new(scheme, identity)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let read = parse("world:anyone:r, digest:ann:4wq/Zg=:cdrwa,auth::cd").unwrap();
        let shown: Vec<_> = read.iter().map(|acl| (acl.scheme(), acl.id(), acl.permission())).collect();
        assert_eq!(
            shown,
            [
                ("world", "anyone", Permission::READ),
                ("digest", "ann:4wq/Zg=", Permission::ALL),
                ("auth", "", Permission::CREATE | Permission::DELETE),
            ]
        );
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        for bad in ["", "world", "world:r", "world:anyone:", "world:anyone:x", ":anyone:r", "world:anyone:r,"]
        {
            assert_eq!(parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
