//! How conversions calibrated on short and on long sequences fare far from the beginning of a text.

use std::ops::Range;

use anyhow::{Result, ensure};
use latent_attention::cache::CacheFormat;
use latent_attention::weights::LatentAttention;
use latent_attention_lm::conversion::ModelOptions;
use latent_attention_lm::evaluate::measure_ranges;
use latent_attention_lm::latent::LatentProducts;
use latent_attention_lm::text::SEQUENCE;

use crate::bench::{Bench, Judged};

/// The first range of positions; every next is as long as all before it.
const FIRST: usize = 512;

/// Prints a row for each conversion and text that has as many tokens as the longest, with a column for each range of
/// positions.
///
/// # Errors
/// If no text is long enough, or the layers do not fit.
pub fn print(bench: &Bench) -> Result<()> {
    let longest = bench.judged.iter().map(|text| text.tokens.len()).max().unwrap_or_default();
    let ranges = ranges(longest - 1);
    let texts: Vec<&Judged> = bench.judged.iter().filter(|text| text.tokens.len() == longest).collect();
    ensure!(ranges.len() > 1, "name a text of more than {FIRST} tokens with --evaluate, and its length with --tokens");
    let titles: String = ranges.iter().map(|range| format!(" {}-{} | KL |", range.start, range.end)).collect();
    println!("| attention | calibrated on sequences of | text |{titles}");
    println!("|---|---:|---|{}", "---:|---:|".repeat(ranges.len()));
    for text in &texts {
        let perplexities = text.original.perplexities(&bench.model.transformer, &text.tokens, &ranges)?;
        let cells: String = perplexities.iter().map(|perplexity| format!(" {perplexity:.2} | - |")).collect();
        println!("| original, bf16 | - | {} |{cells}", text.name);
    }
    let lengths = [SEQUENCE, bench.length];
    for &length in &lengths[..if bench.length == SEQUENCE { 1 } else { 2 }] {
        let options = ModelOptions::default();
        let layers = bench.convert(&bench.calibration(length)?, &[bench.sizes], &options)?.remove(0);
        for (cache, format) in [("bf16", CacheFormat::BF16), ("int4", CacheFormat::INT4)] {
            for text in &texts {
                let cells = measured(bench, &layers, format, text, &ranges)?;
                println!("| shared key, {cache} | {length} | {} |{cells}", text.name);
            }
        }
    }
    Ok(())
}

fn measured(
    bench: &Bench,
    layers: &[LatentAttention],
    format: CacheFormat,
    text: &Judged,
    ranges: &[Range<usize>],
) -> Result<String> {
    let mut attention = LatentProducts::new(layers, &bench.tables, Some(format))?;
    let (model, original) = (&bench.model.transformer, Some(&text.original));
    let measured = measure_ranges(&text.name, model, &mut attention, &text.tokens, original, ranges)?;
    let cell = |of: &latent_attention_lm::evaluate::Measured| {
        format!(" {:.2} | {:.3} |", of.perplexity, of.divergence.unwrap_or_default())
    };
    Ok(measured.iter().map(cell).collect())
}

/// `0..FIRST`, and then every time as many positions again as before, up to `end`.
fn ranges(end: usize) -> Vec<Range<usize>> {
    let mut bounds = vec![0, FIRST.min(end)];
    while let Some(last) = bounds.last().copied().filter(|&last| last < end) {
        bounds.push((2 * last).min(end));
    }
    bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_double_and_cover_everything() {
        assert_eq!(ranges(3000), [0..512, 512..1024, 1024..2048, 2048..3000]);
        for short in [7, 512] {
            assert_eq!(ranges(short), std::iter::once(0..short).collect::<Vec<_>>());
        }
    }
}
