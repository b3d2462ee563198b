//! Amounts of memory on the command line.

/// A number of bytes, at least one: plain, or with a unit (`KB` is 1,000, `KiB` 1,024).
pub fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "a number of bytes, for instance 4GiB or 500MB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_read() {
        for (text, bytes) in [
            ("1024", 1024),
            ("4GiB", 4 << 30),
            ("500 MB", 500_000_000),
            ("2kib", 2048),
            ("1gb", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "0", "-1", "1.5GB", "4 foo", "99999999999999GiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
