//! `gather`: cached tokens as the cache decodes them.

use std::ops::Range;

use latent_attention::Geometry;
use latent_attention::cache::CacheFormat;
use latent_attention::reference::gather;

use crate::common::{Batch, rng};

#[test]
fn ranges_that_do_not_fit_are_named() {
    let geometry = Geometry::deepseek(2, 8, 2, 3, 2).unwrap();
    let batch = Batch::new(&mut rng(1), &[3, 5], &[0, 0], 8);
    let cache = batch.poisoned_cache(&mut rng(2), &geometry, CacheFormat::INT4);
    let refused = |ranges: &[Range<usize>]| gather(&batch.sequences(), Some(ranges), &cache).unwrap_err().to_string();
    let message = refused(&[0..3, 0..5, 0..0]);
    assert_eq!(message, "ranges of tokens: expected [sequences 2] = 2 elements, got 3 elements");
    assert_eq!(refused(&[0..3, 2..6]), "end of the tokens 2..6 of sequence 1 = 6 is outside of 2..=5");
    #[allow(clippy::reversed_empty_ranges)] // That is what is refused.
    let reversed = 2..1;
    assert_eq!(refused(&[reversed, 0..5]), "end of the tokens 2..1 of sequence 0 = 1 is outside of 2..=3");
}
