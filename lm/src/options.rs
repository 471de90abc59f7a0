//! Values on the command line of the programs.

/// Parses a share, 0 to 1.
///
/// # Errors
/// If it is none.
pub fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be 0 to 1".into())
}

/// Parses a count that must not be smaller than `MIN`.
///
/// # Errors
/// If it is, or no count.
pub fn at_least<const MIN: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= MIN => Ok(count),
        Ok(_) => Err(format!("must be at least {MIN}")),
        Err(why) => Err(format!("{why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_parts_of_one() {
        assert_eq!([share("0"), share("0.25"), share("1")], [Ok(0.0), Ok(0.25), Ok(1.0)]);
        for bad in ["-0.1", "1.5", "NaN", "half", ""] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_have_a_smallest_value() {
        assert_eq!(at_least::<2>("2"), Ok(2));
        for bad in ["1", "-3", "many", ""] {
            assert!(at_least::<2>(bad).is_err(), "{bad}");
        }
    }
}
