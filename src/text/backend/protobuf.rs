//! The wire format of Protocol Buffers, as far as a `tokenizer.model` needs it.
//!
//! <https://protobuf.dev/programming-guides/encoding/>: a message is a sequence of fields, each a key
//! (number and wire type, as a varint) and a value.

/// A field's value, by its wire type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Why some bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("it ends within a field")]
    Truncated,
    #[error("it has a number of more than 64 bits")]
    Overlong,
    #[error("it has a field of the unknown wire type {0}")]
    Type(u64),
}

/// The fields of a message in the order of the file, with their numbers.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Wire<'a>), WireError> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(WireError::Type(other)),
        };
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(WireError::Overlong);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Overlong)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_come_as_written() {
        let message = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x1d, 0, 0, 0x80, 0x3f, // 3: 1.0f
            0x21, 1, 0, 0, 0, 0, 0, 0, 0, // 4: 1
        ];
        let fields: Vec<_> = Fields(&message).collect::<Result<_, _>>().unwrap();
        let expected = [
            (1, Wire::Varint(150)),
            (2, Wire::Bytes(b"hi")),
            (3, Wire::Fixed32(1f32.to_bits())),
            (4, Wire::Fixed64(1)),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let error = |bytes: &[u8]| Fields(bytes).find_map(Result::err).unwrap();
        assert_eq!(error(&[0x12, 5, b'h']), WireError::Truncated);
        assert_eq!(error(&[0x08, 0x80]), WireError::Truncated);
        assert_eq!(error(&[0x0b]), WireError::Type(3));
        let mut overlong = vec![0x08];
        overlong.extend([0xff; 10]);
        assert_eq!(error(&overlong), WireError::Overlong);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes: Vec<u8>) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }
    }
}
