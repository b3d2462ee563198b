//! Numbers of a request, and what they may be.

use crate::server::error::ApiError;

/// A number from `low` to `high`, both included.
pub fn number(name: &str, value: f64, low: f64, high: f64) -> Result<f32, ApiError> {
    if (low..=high).contains(&value) {
        return Ok(value as f32);
    }
    let bounds = format!("between {low} and {high}");
    Err(ApiError::invalid(
        name,
        format!("`{name}` is {value}, it must be {bounds}"),
    ))
}

/// The same where the request may leave it out.
pub fn number_or(
    default: f32,
    name: &str,
    value: Option<f64>,
    low: f64,
    high: f64,
) -> Result<f32, ApiError> {
    value.map_or(Ok(default), |value| number(name, value, low, high))
}

/// A number above 0.
pub fn positive(name: &str, value: f64, high: f64) -> Result<f32, ApiError> {
    if value > 0.0 && value <= high {
        // The smallest float64 numbers would become 0.
        return Ok((value as f32).max(f32::MIN_POSITIVE));
    }
    let message = format!("`{name}` is {value}, it must be more than 0 and at most {high}");
    Err(ApiError::invalid(name, message))
}

/// An integer between `low` (not negative) and `high`.
pub fn integer(name: &str, value: i64, low: i64, high: i64) -> Result<usize, ApiError> {
    usize::try_from(value)
        .ok()
        .filter(|_| (low..=high).contains(&value))
        .ok_or_else(|| {
            let bounds = if high == i64::MAX {
                format!("at least {low}")
            } else {
                format!("between {low} and {high}")
            };
            ApiError::invalid(name, format!("`{name}` is {value}, it must be {bounds}"))
        })
}
