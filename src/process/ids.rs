//! Ids of requests that cannot be guessed.
//!
//! A payload that a careless handler prints can hold lines that look like replies. These answer no
//! other request as long as the sender of the payload does not know its id.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt;

/// Random bytes of one system call, which costs as much as some hundred bytes. They make 64 ids.
const BLOCK_BYTES: usize = 512;

/// Bytes of one id before it is cut down to 53 bits.
const ID_BYTES: usize = 8;

/// Number of digits of nine ids in ten. As many are copied and compared together, without a call.
const USUAL_DIGITS: usize = 16;

/// Integers from 1 up to 2^53, the largest that JavaScript's numbers keep, from the kernel's
/// cryptographic source.
pub struct RandomIds {
    bytes: [u8; BLOCK_BYTES],
    used: usize,
}

impl RandomIds {
    /// Asks the kernel for nothing yet.
    pub fn new() -> RandomIds {
        RandomIds {
            bytes: [0; BLOCK_BYTES],
            used: BLOCK_BYTES,
        }
    }

    /// The next id; fails when the kernel gives no random bytes.
    pub fn next_id(&mut self) -> Result<u64, Errno> {
        loop {
            if self.used == BLOCK_BYTES {
                self.refill()?;
            }
            let mut bytes = [0; ID_BYTES];
            bytes.copy_from_slice(&self.bytes[self.used..self.used + ID_BYTES]);
            self.used += ID_BYTES;
            let id = u64::from_ne_bytes(bytes) >> 11;
            if id > 0 {
                return Ok(id);
            }
        }
    }

    #[cold]
    fn refill(&mut self) -> Result<(), Errno> {
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match getrandom(&mut self.bytes[filled..], GetRandomFlags::empty()) {
                Ok(length) => filled += length,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.used = 0;
        Ok(())
    }
}

impl Default for RandomIds {
    fn default() -> RandomIds {
        RandomIds::new()
    }
}

/// The digits of an id, as they stand in the lines of its request and its reply.
#[derive(Debug, Clone, Copy)]
pub struct IdDigits {
    digits: [u8; 20],
    length: u8,
}

impl IdDigits {
    /// The digits of this id.
    pub fn new(id: u64) -> IdDigits {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(id).as_bytes();
        let mut digits = [0; 20];
        match text.first_chunk::<USUAL_DIGITS>() {
            Some(usual) if text.len() == USUAL_DIGITS => {
                digits[..USUAL_DIGITS].copy_from_slice(usual)
            }
            Some(_) | None => digits[..text.len()].copy_from_slice(text),
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the largest number of 64 bits has 20 digits"
        )]
        let length = text.len() as u8;
        IdDigits { digits, length }
    }

    /// What stands behind the digits, if the text begins with them.
    pub fn strip_from<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        if usize::from(self.length) == USUAL_DIGITS {
            let (digits, rest) = text.split_first_chunk::<USUAL_DIGITS>()?;
            return (self.digits[..USUAL_DIGITS] == digits[..]).then_some(rest);
        }
        text.strip_prefix(self.as_bytes())
    }

    /// The digits, as ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..usize::from(self.length)]
    }
}

/// Shows no bytes, because they are the ids to come.
impl fmt::Debug for RandomIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomIds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_safe_integers_that_follow_no_order() {
        let mut ids = RandomIds::new();
        let drawn: Vec<u64> = (0..1000).map(|_| ids.next_id().unwrap()).collect();
        assert!(drawn.iter().all(|id| (1..1 << 53).contains(id)));
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 1000);
        // Of differences that are drawn, half are negative, and few are small.
        let ups = drawn.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((300..700).contains(&ups), "{ups}");
        let small = drawn
            .windows(2)
            .filter(|pair| pair[0].abs_diff(pair[1]) < 1 << 40);
        assert!(small.count() < 10);
        // Each bit is drawn.
        for bit in 0..53 {
            let set = drawn.iter().filter(|id| *id >> bit & 1 == 1).count();
            assert!((300..700).contains(&set), "bit {bit}: {set}");
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for id in [0, 7, 1 << 53, u64::MAX] {
            let (digits, text) = (IdDigits::new(id), id.to_string());
            assert_eq!(digits.as_bytes(), text.as_bytes());
            let rest = digits.strip_from(text.as_bytes());
            assert_eq!(rest, Some(&b""[..]));
            let longer = format!("{text},5");
            assert_eq!(digits.strip_from(longer.as_bytes()), Some(&b",5"[..]));
            let other = text.replacen(text.chars().next_back().unwrap_or('0'), "x", 1);
            assert_eq!(digits.strip_from(other.as_bytes()), None);
            assert_eq!(digits.strip_from(&text.as_bytes()[1..]), None);
        }
    }

    #[test]
    fn two_processes_share_no_ids() {
        let [mut first, mut second] = [RandomIds::new(), RandomIds::new()];
        let first: HashSet<u64> = (0..500).map(|_| first.next_id().unwrap()).collect();
        assert!((0..500).all(|_| !first.contains(&second.next_id().unwrap())));
    }
}
