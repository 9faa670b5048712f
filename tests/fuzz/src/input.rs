//! Takes an input apart: numbers, chunks, frames. An input that ends is as good as one with zeros
//! behind it, so that every input means something.

/// What is left of an input.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of it.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes, little-endian.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Eight bytes, little-endian.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number in `0..end`, from two bytes; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.short()).checked_rem(end).unwrap_or(0)
    }

    /// At most so many bytes.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length before them, in two bytes.
    pub fn chunk(&mut self) -> &'a [u8] {
        let bytes = self.short();
        self.take(bytes.into())
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A text with its length before it, in a byte; what is no UTF-8 is replaced.
    pub fn text(&mut self) -> String {
        let bytes = self.byte();
        String::from_utf8_lossy(self.take(bytes.into())).into_owned()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}

/// The twin of `Input::chunk`, for seeds. What is too long for a length of two bytes is cut.
pub fn put_chunk(input: &mut Vec<u8>, chunk: &[u8]) {
    let bytes = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
    input.extend(bytes.to_le_bytes());
    input.extend(&chunk[..bytes.into()]);
}

/// The twin of `Input::text`.
pub fn put_text(input: &mut Vec<u8>, text: &str) {
    let bytes = u8::try_from(text.len()).unwrap_or(u8::MAX);
    input.push(bytes);
    input.extend(&text.as_bytes()[..bytes.into()]);
}
