//! Counts Redis commands in a stream of bytes that may be cut anywhere.

use std::mem;

#[derive(Debug, Default)]
pub(super) struct Requests {
    line: Vec<u8>,
    arguments: usize,
    skip: usize,
}

impl Requests {
    /// Returns how many commands end within `bytes`, the next piece of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut complete = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                complete += u64::from(self.skip == 0 && self.argument_ended());
                continue;
            }
            self.line.push(bytes[0]);
            bytes = &bytes[1..];
            if self.line.ends_with(b"\n") {
                let line = mem::take(&mut self.line);
                complete += u64::from(self.is_inline_command(&line));
            }
        }
        complete
    }

    fn argument_ended(&mut self) -> bool {
        self.arguments = self.arguments.saturating_sub(1);
        self.arguments == 0
    }

    /// Takes in a header line; any other line is a command by itself, such as `PING`.
    fn is_inline_command(&mut self, line: &[u8]) -> bool {
        let (kind, number) = line.split_at(1);
        let number = str::from_utf8(number).ok().and_then(|number| number.trim_end().parse().ok());
        match (kind, number) {
            (b"*", Some(arguments)) => self.arguments = arguments,
            (b"$", Some(length)) => self.skip = length + b"\r\n".len(),
            _ => return true,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Requests;

    #[test]
    fn commands_are_counted_wherever_the_stream_is_cut() {
        let stream = b"*2\r\n$3\r\nGET\r\n$4\r\n*1\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\n";
        for piece in 1..=stream.len() {
            let mut requests = Requests::default();
            let counted: u64 = stream.chunks(piece).map(|bytes| requests.feed(bytes)).sum();
            assert_eq!(counted, 3, "in pieces of {piece} bytes");
        }
    }
}
