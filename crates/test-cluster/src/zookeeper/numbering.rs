//! Changes the number that a server gives to the next child of a node, in the snapshot that it loads at its next start.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context, Result, ensure};

/// From the text of a node's path to its `cversion`, less the length of the node's data: the data's length, the number
/// of its ACL, four numbers of 64 bits, and its version.
const TO_CVERSION: usize = 4 + 8 + 4 * 8 + 4;

/// What ends each part of a snapshot: the sum of all bytes before it, and the path `/`.
const SEAL: usize = 8 + END.len();
const END: [u8; 5] = [0, 0, 0, 1, b'/'];

/// The part behind the tree, if there is one: a zxid, the version of a digest, and the digest.
const DIGEST: usize = 8 + 4 + 8;

/// Has the node at `path` in the newest snapshot in `directory` number its children from `next` on, and removes the log
/// of what came before the snapshot.
pub(super) fn set(directory: &Path, path: &str, next: i32) -> Result<()> {
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.split_once('.') {
            Some(("snapshot", zxid)) => snapshots.push((u64::from_str_radix(zxid, 16)?, file)),
            Some(("log", _)) => fs::remove_file(file)?,
            _ => {}
        }
    }
    let (_, newest) = snapshots.into_iter().max().context("the server has written no snapshot")?;
    let mut bytes = fs::read(&newest)?;
    let cversion = find(&bytes, path).with_context(|| format!("there is no node {path}"))?;
    // The number of the next child, and the version of the list of children, are one.
    bytes[cversion].copy_from_slice(&next.to_be_bytes());
    seal(&mut bytes)?;
    fs::write(&newest, bytes).context("cannot change a snapshot")
}

fn find(bytes: &[u8], path: &str) -> Option<Range<usize>> {
    let mut wanted = u32::try_from(path.len()).ok()?.to_be_bytes().to_vec();
    wanted.extend(path.as_bytes());
    let after = bytes.windows(wanted.len()).position(|window| window == wanted)? + wanted.len();
    let data = i32::from_be_bytes(bytes.get(after..after + 4)?.try_into().ok()?);
    let cversion = after + TO_CVERSION + usize::try_from(data).unwrap_or(0);
    bytes.get(cversion..cversion + 4)?;
    Some(cversion..cversion + 4)
}

/// Makes the sums right again.
fn seal(bytes: &mut [u8]) -> Result<()> {
    let last = bytes.len().checked_sub(SEAL).context("the snapshot is too short")?;
    ensure!(bytes.ends_with(&END), "the snapshot does not end as is known");
    let tree = last.checked_sub(DIGEST + SEAL);
    let tree = tree.filter(|tree| bytes[tree + 8..tree + SEAL] == END);
    for at in tree.into_iter().chain([last]) {
        let sum = u64::from(adler32(&bytes[..at]));
        bytes[at..at + 8].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % MODULUS;
        (low, (high + low) % MODULUS)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    #[test]
    fn sums_are_those_of_zlib() {
        assert_eq!(super::adler32(b"Wikipedia"), 0x11e6_0398);
    }
}
