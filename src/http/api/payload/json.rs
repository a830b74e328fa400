//! A pull scanner that accepts and refuses exactly what CPython 3.11's `json` does.
//!
//! It never recurses and never copies: open brackets are a stack of at most [`MAX_DEPTH`] bytes,
//! and every token is a range of the text. Where CPython stops, it stops, in the same words.

use crate::json_string::{unescaped, unicode_escape};
use std::ops::Range;

/// The deepest nesting that is read; one more is refused.
///
/// CPython's recursion limit of 1000, less the frames that uvicorn and FastAPI stand on: measured
/// on FastAPI 0.116 under uvicorn 0.35.
pub(super) const MAX_DEPTH: usize = 961;

/// The most digits of an integer that CPython converts (`sys.int_info.default_max_str_digits`).
const MAX_INTEGER_DIGITS: usize = 4300;

/// What the scanner found next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// The name of a member; its value is the next token.
    Key(StringContents),
    /// A string value.
    String(StringContents),
    /// A number, `true`, `false`, `null`, or one of the constants that only Python reads.
    Scalar(Range<usize>),
    /// `{` or `[`.
    Open(Bracket),
    /// The bracket that closes the last one opened.
    Close(Bracket),
    /// The end of the text, after one whole value.
    End,
}

/// The contents of a string between the quotes, all escapes valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StringContents {
    /// Where they lie, the quotes left out.
    pub(super) range: Range<usize>,
    /// What decoding them gives.
    pub(super) unicode: Unicode,
}

/// Whether a JSON string stands for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unicode {
    /// Every surrogate escape is half of a pair.
    WellFormed,
    /// At least one surrogate escape stands alone.
    LoneSurrogate,
}

/// The kind of an open container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    /// `{}`
    Object,
    /// `[]`
    Array,
}

/// Why the scanner stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not JSON: CPython's `msg`, and the byte where.
    Syntax(&'static str, usize),
    /// JSON, but nested too deeply or with too long an integer for CPython.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Value,
    FirstItem,
    FirstKey,
    AfterValue,
}

/// Reads the tokens of one JSON text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Bracket>,
    expect: Expect,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Scanner {
            text: text.as_bytes(),
            at: 0,
            open: Vec::new(),
            expect: Expect::Value,
        }
    }

    /// A scanner of the one value at `range` of `text`.
    pub(super) fn within(text: &'a str, range: Range<usize>) -> Self {
        let before_end = text.as_bytes().get(..range.end).unwrap_or_default();
        Scanner {
            text: before_end,
            at: range.start,
            open: Vec::new(),
            expect: Expect::Value,
        }
    }

    /// How many containers are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The innermost open container.
    pub(super) fn inside(&self) -> Option<Bracket> {
        self.open.last().copied()
    }

    /// After a key: leaves out its value, which ends at `end`.
    pub(super) fn skip_value(&mut self, end: usize) {
        self.at = end;
        self.expect = Expect::AfterValue;
    }

    /// The byte after the last token.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next token. After a [`Stop`] or [`Token::End`] there is nothing more to ask for.
    pub(super) fn next(&mut self) -> Result<Token, Stop> {
        self.at = skip_whitespace(self.text, self.at);
        match self.expect {
            Expect::Value => self.value(),
            Expect::FirstItem if self.peek() == Some(b']') => Ok(self.close(Bracket::Array)),
            Expect::FirstItem => self.value(),
            Expect::FirstKey if self.peek() == Some(b'}') => Ok(self.close(Bracket::Object)),
            Expect::FirstKey => self.key(),
            Expect::AfterValue => self.after_value(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn after_value(&mut self) -> Result<Token, Stop> {
        match (self.open.last().copied(), self.peek()) {
            (None, None) => Ok(Token::End),
            (None, Some(_)) => Err(Stop::Syntax("Extra data", self.at)),
            (Some(Bracket::Array), Some(b']')) => Ok(self.close(Bracket::Array)),
            (Some(Bracket::Object), Some(b'}')) => Ok(self.close(Bracket::Object)),
            (Some(bracket), Some(b',')) => {
                self.at = skip_whitespace(self.text, self.at + 1);
                match bracket {
                    Bracket::Array => self.value(),
                    Bracket::Object => self.key(),
                }
            }
            (Some(_), _) => Err(Stop::Syntax("Expecting ',' delimiter", self.at)),
        }
    }

    fn key(&mut self) -> Result<Token, Stop> {
        if self.peek() != Some(b'"') {
            let message = "Expecting property name enclosed in double quotes";
            return Err(Stop::Syntax(message, self.at));
        }
        let key = scan_string(self.text, self.at)?;
        self.at = skip_whitespace(self.text, key.range.end + 1);
        if self.peek() != Some(b':') {
            return Err(Stop::Syntax("Expecting ':' delimiter", self.at));
        }
        self.at += 1;
        self.expect = Expect::Value;
        Ok(Token::Key(key))
    }

    fn value(&mut self) -> Result<Token, Stop> {
        self.expect = Expect::AfterValue;
        match self.peek() {
            Some(b'"') => {
                let text = scan_string(self.text, self.at)?;
                self.at = text.range.end + 1;
                Ok(Token::String(text))
            }
            Some(b'{') => self.open(Bracket::Object, Expect::FirstKey),
            Some(b'[') => self.open(Bracket::Array, Expect::FirstItem),
            _ => {
                let end = scan_scalar(self.text, self.at)?;
                let range = self.at..end;
                self.at = end;
                Ok(Token::Scalar(range))
            }
        }
    }

    fn open(&mut self, bracket: Bracket, expect: Expect) -> Result<Token, Stop> {
        if self.open.len() == MAX_DEPTH {
            return Err(Stop::Refused);
        }
        self.open.push(bracket);
        self.at += 1;
        self.expect = expect;
        Ok(Token::Open(bracket))
    }

    fn close(&mut self, bracket: Bracket) -> Token {
        self.open.pop();
        self.at += 1;
        self.expect = Expect::AfterValue;
        Token::Close(bracket)
    }
}

/// The first byte at or after `at` that is not JSON white space.
pub(super) fn skip_whitespace(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Reads the string whose opening quote is at `quote`.
pub(super) fn scan_string(text: &[u8], quote: usize) -> Result<StringContents, Stop> {
    let start = quote + 1;
    let mut at = start;
    let mut unicode = Unicode::WellFormed;
    loop {
        at = skip_plain(text, at);
        match text.get(at) {
            Some(b'"') => {
                return Ok(StringContents {
                    range: start..at,
                    unicode,
                });
            }
            Some(b'\\') => {}
            Some(_) => return Err(Stop::Syntax("Invalid control character at", at)),
            None => return Err(Stop::Syntax("Unterminated string starting at", quote)),
        }
        match text.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
            Some(b'u') => {
                let Some((character, end)) = unicode_escape(text, at) else {
                    return Err(Stop::Syntax("Invalid \\uXXXX escape", at + 1));
                };
                // CPython wants one more character behind the last four digits.
                if end == text.len() {
                    return Err(Stop::Syntax("Invalid \\uXXXX escape", end - 5));
                }
                if character.is_none() {
                    unicode = Unicode::LoneSurrogate;
                }
                at = end;
            }
            Some(_) => return Err(Stop::Syntax("Invalid \\escape", at)),
            None => return Err(Stop::Syntax("Unterminated string starting at", quote)),
        }
    }
}

/// The first byte at or after `at` that is a quote, a backslash or a control character.
///
/// Eight bytes at a time: payloads are mostly plain, and every byte of them passes through here.
fn skip_plain(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    // The lowest high bit that is set marks the lowest zero byte; borrows only spoil higher ones.
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let hits = zero_bytes(word ^ (ONES * u64::from(b'"')))
            | zero_bytes(word ^ (ONES * u64::from(b'\\')))
            | (word.wrapping_sub(ONES * 0x20) & !word & HIGH);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text
        .get(at)
        .is_some_and(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        at += 1;
    }
    at
}

/// The end of the constant or number at `at`.
fn scan_scalar(text: &[u8], at: usize) -> Result<usize, Stop> {
    let rest = text.get(at..).unwrap_or_default();
    for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
        if rest.starts_with(word.as_bytes()) {
            return Ok(at + word.len());
        }
    }
    let digits = |from: usize| {
        rest.iter()
            .skip(from)
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let start = usize::from(rest.first() == Some(&b'-'));
    let integer_digits = match rest.get(start) {
        Some(b'0') => 1,
        Some(b'1'..=b'9') => digits(start),
        _ => return Err(Stop::Syntax("Expecting value", at)),
    };
    let mut end = start + integer_digits;
    let mut is_integer = true;
    // A point or an exponent without digits is not part of the number.
    if rest.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        is_integer = false;
        end += 1 + digits(end + 1);
    }
    if let Some(b'e' | b'E') = rest.get(end) {
        let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
        let exponent_digits = digits(end + 1 + sign);
        if exponent_digits > 0 {
            is_integer = false;
            end += 1 + sign + exponent_digits;
        }
    }
    if is_integer && integer_digits > MAX_INTEGER_DIGITS {
        return Err(Stop::Refused);
    }
    Ok(at + end)
}

/// The characters that the contents of a valid JSON string stand for, a surrogate that stands
/// alone as U+FFFD.
pub(super) fn characters(contents: &str) -> impl Iterator<Item = char> {
    let mut rest = contents;
    std::iter::from_fn(move || {
        let mut chars = rest.chars();
        let (character, end) = match (chars.next()?, chars.next()) {
            ('\\', Some('u')) => {
                let (character, end) = unicode_escape(rest.as_bytes(), 0)?;
                (character.unwrap_or(char::REPLACEMENT_CHARACTER), end)
            }
            ('\\', Some(letter)) => (u8::try_from(letter).map_or(letter, unescaped), 2),
            (character, _) => (character, character.len_utf8()),
        };
        rest = rest.get(end..)?;
        Some(character)
    })
}
