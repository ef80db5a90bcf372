//! Names of all kinds and sizes.

use anyhow::Result;
use test_cluster::Direction;

use super::{ALL, Local, Row, Setnx};
use crate::{
    event::{Answer, How, Invariant},
    lab::Lab,
};

pub(super) const ROWS: &[Row] = &[
    Row::new(29, "names of any size", ALL, sizes).quick(&[Local]),
    Row::new(30, "hostile names", ALL, hostile).quick(&[Setnx]),
];

/// Names that are too long or empty are refused before anything is sent; all others are locks.
fn sizes(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let client = lab.agent()?;
    let fault = lab.fault("names of 0 bytes to 2 MiB");
    for length in [0, 4_097, 70_000, 2 << 20] {
        let before = client.bytes(Direction::ToServer);
        let refused = client.acquire(&"n".repeat(length), How::Try)?;
        lab.expect(
            Invariant::Errors,
            matches!(&refused, Err((kind, _)) if kind == "InvalidInput"),
            format!("a name of {length} bytes is InvalidInput: {:?}", kind(&refused)),
        );
        // Heartbeats of a session go on meanwhile.
        let sent = client.bytes(Direction::ToServer) - before;
        lab.expect(Invariant::Errors, sent < 1_000, format!("and is not sent: {sent} bytes were"));
    }
    for length in [1, 255, 4_096] {
        let name = "n".repeat(length);
        let taken = client.acquire(&name, How::Try)?;
        let holds = matches!(taken, Ok(Answer::Acquired { .. }));
        lab.expect(
            Invariant::Errors,
            holds,
            format!("a name of {length} bytes is a lock: {:?}", kind(&taken)),
        );
        if holds {
            client.release(&name)?.ok();
        }
    }
    fault.fired("names of seven sizes were answered");
    fault.end();
    lab.finish(Some(&load))
}

fn kind(outcome: &crate::lab::agents::Outcome) -> Result<&Answer, &str> {
    outcome.as_ref().map_err(|(kind, _)| kind.as_str())
}

/// Different names are different locks, whatever they mean to a server.
fn hostile(lab: &mut Lab<'_>) -> Result<()> {
    let names = [
        "..",
        ".",
        "/",
        "//",
        "a",
        "a/",
        "/a",
        "a/b",
        "a//b",
        "A",
        "zookeeper",
        "a\0b",
        "a\r\nb",
        "a\nb",
        "*",
        "{a}",
        "{}",
        "a%2Fb",
        "a%2fb",
        "%",
        "\u{ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "é",
        "e\u{301}",
        "\u{202e}a",
        " a",
        "a ",
        "~",
        "\u{1f512}",
        "#fence",
        "orders/42#fence",
    ];
    let load = lab.load()?;
    let (holder, other) = (lab.agent()?, lab.agent()?);
    let fault = lab.fault("names that mean something to servers, or look alike");
    for name in names {
        let taken = holder.acquire(name, How::Try)?;
        let holds = matches!(taken, Ok(Answer::Acquired { .. }));
        lab.expect(Invariant::Errors, holds, format!("{name:?} is a lock of its own: {:?}", kind(&taken)));
    }
    for name in names {
        let busy = other.acquire(name, How::Try)?;
        lab.expect(
            Invariant::Errors,
            busy == Ok(Answer::Busy),
            format!("{name:?} is held: {:?}", kind(&busy)),
        );
    }
    for name in names {
        let released = holder.release(name)?;
        lab.expect(Invariant::Owner, released.is_ok(), format!("{name:?} is released: {released:?}"));
    }
    fault.fired(format!("{} names were held at once", names.len()));
    fault.end();
    lab.finish(Some(&load))
}
