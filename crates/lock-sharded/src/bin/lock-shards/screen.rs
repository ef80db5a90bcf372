//! What is shown: a bar and lines for people, or JSON for programs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use lock_sharded::{Error, Event, FencingToken, Moved, Observer, Slot};
use serde_json::{Value, json};

pub(crate) struct Screen {
    json: bool,
    bar: ProgressBar,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    slots: usize,
    done: usize,
    failed: usize,
    copied: usize,
    freed: usize,
    refused: Vec<Duration>,
    /// Holds left in each slot, and the oldest.
    left: HashMap<Slot, (usize, Option<(String, FencingToken)>)>,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bar: ProgressBar::hidden(), seen: Mutex::default() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line, in one form or the other.
    pub(crate) fn say(&self, line: Value, text: String) {
        if self.json {
            println!("{line}");
        } else {
            self.bar.suspend(|| println!("{text}"));
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("lock-shards: {text}"));
    }

    pub(crate) fn begin(&self, slots: usize) {
        self.seen().slots = slots;
        if !self.json {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} slots, {elapsed}  {wide_msg}");
            self.bar.set_style(style.expect("a valid template"));
            self.bar.set_length(u64::try_from(slots).unwrap_or(u64::MAX));
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
    }

    pub(crate) fn moved(&self, moved: &Moved) {
        let mut seen = self.seen();
        seen.done += 1;
        seen.copied += moved.copied;
        seen.freed += moved.freed;
        drop(seen);
        self.bar.inc(1);
    }

    pub(crate) fn failed(&self, slot: Slot, error: &Error) {
        self.seen().failed += 1;
        if self.json {
            println!("{}", json!({ "slot": slot.index(), "error": error.to_string() }));
        } else {
            self.warn(&format!("slot {slot}: {error}"));
        }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
        let seen = self.seen();
        let (longest, sum) =
            (seen.refused.iter().max().copied().unwrap_or_default(), seen.refused.iter().sum());
        let mean: Duration = seen
            .refused
            .len()
            .try_into()
            .ok()
            .and_then(|count| Duration::checked_div(sum, count))
            .unwrap_or_default();
        let Seen { slots, done, failed, copied, freed, .. } = &*seen;
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let (longest, mean) = (milliseconds(longest), milliseconds(mean));
        let line = json!({
            "slots": slots, "done": done, "failed": failed, "copied": copied, "freed": freed,
            "refused_ms": { "longest": longest, "mean": mean },
        });
        let text = format!(
            "{done} of {slots} slots done, {failed} failed; {copied} holds copied, {freed} copies freed; a free \
             key was refused for {mean} ms in the mean and {longest} ms at the longest"
        );
        drop(seen);
        self.say(line, text);
    }

    fn show(&self, seen: &Seen) {
        let left: usize = seen.left.values().map(|(left, _)| left).sum();
        let oldest =
            seen.left.values().filter_map(|(_, oldest)| oldest.as_ref()).min_by_key(|(_, token)| *token);
        let oldest =
            oldest.map_or(String::new(), |(key, token)| format!(", the oldest {key:?} with token {token}"));
        let refused: Duration = seen.refused.iter().sum();
        self.bar.set_message(format!("{left} holds left{oldest}; refused for {refused:.1?} in all"));
    }
}

impl Observer for Screen {
    fn tell(&self, event: &Event) {
        let line = match event {
            Event::Begins { slot, step } => json!({ "slot": slot.index(), "step": step.to_string() }),
            Event::Opened { slot, copied, refused } => {
                self.seen().refused.extend(*refused);
                let refused = refused.map(|refused| refused.as_secs_f64() * 1e3);
                json!({ "slot": slot.index(), "opened": true, "copied": copied, "refused_ms": refused })
            }
            Event::Draining { slot, left, oldest } => {
                self.seen().left.insert(*slot, (*left, oldest.clone()));
                let oldest =
                    oldest.as_ref().map(|(key, token)| json!({ "key": key, "token": token.to_string() }));
                json!({ "slot": slot.index(), "left": left, "oldest": oldest })
            }
            Event::Waiting { slot, reason } => {
                if !self.json {
                    self.warn(&format!("slot {slot} waits: {reason}"));
                }
                json!({ "slot": slot.index(), "waits": reason })
            }
            Event::Done { slot } => {
                self.seen().left.remove(slot);
                json!({ "slot": slot.index(), "done": true })
            }
            _ => return,
        };
        if self.json {
            println!("{line}");
        } else {
            self.show(&self.seen());
        }
    }
}
