//! Length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message").

use super::protobuf::Reader as Message;
use super::{Malformed, Step, Values, Wanted};

/// Reads the messages of a stream.
#[derive(Debug)]
pub(super) struct Reader {
    message: Message,
    /// Of the prefix.
    prefix: [u8; 5],
    prefix_len: usize,
    /// Of the message; `None`: within the prefix.
    remaining: Option<usize>,
}

// === impl Reader ===

impl Reader {
    pub fn new(fields: Wanted<'_>) -> Self {
        Self { message: Message::new(fields), prefix: [0; 5], prefix_len: 0, remaining: None }
    }

    pub fn feed<'c>(&mut self, mut piece: &'c [u8], values: &mut Values) -> Result<Step<'c>, Malformed> {
        loop {
            let remaining = match self.remaining {
                Some(remaining) => remaining,
                None => {
                    let Some((byte, rest)) = piece.split_first() else { return Ok(Step::More) };
                    piece = rest;
                    *self.prefix.get_mut(self.prefix_len).ok_or(Malformed)? = *byte;
                    self.prefix_len = self.prefix_len.saturating_add(1);
                    if self.prefix_len < self.prefix.len() {
                        continue;
                    }
                    let [flag, length @ ..] = self.prefix;
                    // A compressed message cannot be read here.
                    if flag != 0 {
                        return Err(Malformed);
                    }
                    self.prefix_len = 0;
                    self.message.begin();
                    usize::try_from(u32::from_be_bytes(length)).map_err(|_| Malformed)?
                }
            };
            let (now, rest) = piece.split_at_checked(remaining).unwrap_or((piece, &[]));
            self.message.feed(now, values)?;
            match remaining.saturating_sub(now.len()) {
                0 => {
                    self.message.end()?;
                    self.remaining = None;
                    return Ok(Step::Message(rest));
                }
                left => {
                    self.remaining = Some(left);
                    return Ok(Step::More);
                }
            }
        }
    }

    pub fn is_whole(&self) -> bool {
        self.remaining.is_none() && self.prefix_len == 0
    }
}
