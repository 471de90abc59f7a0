//! A token's row of a tile: values to bytes, and bytes to f32.

use half::{bf16, f16};

use super::codec::{Affine, pack_nibbles, quantize, unpack_nibbles};
use super::format::{Group, RowFormat};
use super::range::RangeSetting;

/// Bytes of one `(scale, min)` pair.
pub(crate) const AFFINE_BYTES: usize = 4;

/// Bytes of a factor of normalised keys, f16.
pub(crate) const FACTOR_BYTES: usize = 2;

/// Writes a token's factors, and zeros behind them. Returns how many saturated: what is beyond f16's range becomes its largest
/// number, and what is negative or no number 0.
pub(crate) fn encode_factors(factors: &[f32], bytes: &mut [u8]) -> usize {
    bytes.fill(0);
    let most = f16::MAX.to_f32();
    for (bytes, &factor) in bytes.chunks_exact_mut(FACTOR_BYTES).zip(factors) {
        let stored = if factor > 0.0 { f16::from_f32(factor.min(most)) } else { f16::ZERO };
        bytes.copy_from_slice(&stored.to_le_bytes());
    }
    factors.iter().filter(|factor| !(0.0..=most).contains(*factor)).count()
}

/// Reads so many factors.
pub(crate) fn decode_factors(bytes: &[u8], count: usize) -> impl Iterator<Item = f32> + use<'_> {
    bytes.as_chunks::<FACTOR_BYTES>().0.iter().take(count).map(|&bytes| f16::from_le_bytes(bytes).to_f32())
}

/// Writes a row, its padding and its `(scale, min)` pairs. Returns how many values saturated.
pub(crate) fn encode(
    format: RowFormat,
    setting: RangeSetting,
    values: &[f32],
    row: &mut [u8],
    affines: &mut [u8],
) -> usize {
    row.fill(0);
    match format {
        RowFormat::Bf16 => {
            for (bytes, &value) in row.chunks_exact_mut(2).zip(values) {
                // NaN payloads differ between converters; one pattern keeps the bytes comparable.
                let stored = if value.is_nan() { bf16::from_bits(0x7FFF) } else { bf16::from_f32(value) };
                bytes.copy_from_slice(&stored.to_le_bytes());
            }
            values.iter().filter(|value| !value.is_finite()).count()
        }
        RowFormat::Affine { bits, group } => {
            let max_code = ((1u32 << bits) - 1) as u8;
            let mut codes = [0; Group::Whole.size()];
            let mut saturated = 0;
            let groups = values.chunks(group).zip(row.chunks_mut(group * bits / 8));
            for ((values, row), affine) in groups.zip(affines.chunks_exact_mut(AFFINE_BYTES)) {
                let codes = &mut codes[..values.len()];
                let quantized = quantize(values, max_code, setting.of_group(values.len(), bits), codes);
                affine.copy_from_slice(&quantized.affine.to_le_bytes());
                saturated += quantized.saturated;
                match bits {
                    4 => pack(codes, row),
                    _ => row[..codes.len()].copy_from_slice(codes),
                }
            }
            saturated
        }
    }
}

fn pack(codes: &[u8], row: &mut [u8]) {
    for (codes, bytes) in codes.chunks(8).zip(row.chunks_exact_mut(4)) {
        let mut word = [0; 8];
        word[..codes.len()].copy_from_slice(codes);
        bytes.copy_from_slice(&pack_nibbles(word).to_le_bytes());
    }
}

/// Reads a row's values, rounded to f32 once: a code times its scale is exact, with 19 significant bits at most.
#[inline(always)]
pub(crate) fn decode_f32(format: RowFormat, row: &[u8], affines: &[u8], values: &mut [f32]) {
    let RowFormat::Affine { bits, group } = format else {
        for (value, bytes) in values.iter_mut().zip(row.chunks_exact(2)) {
            *value = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
        }
        return;
    };
    let groups = values.chunks_mut(group).zip(row.chunks(group * bits / 8));
    for ((values, row), affine) in groups.zip(affines.chunks_exact(AFFINE_BYTES)) {
        let affine = Affine::from_le_bytes([affine[0], affine[1], affine[2], affine[3]]);
        let (scale, min) = (affine.scale.to_f32(), affine.min.to_f32());
        let of_code = |code: u8| scale * f32::from(code) + min;
        if bits == 4 {
            for (values, bytes) in values.chunks_mut(8).zip(row.chunks_exact(4)) {
                let codes = unpack_nibbles(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                values.iter_mut().zip(codes).for_each(|(value, code)| *value = of_code(code));
            }
        } else {
            values.iter_mut().zip(row).for_each(|(value, &code)| *value = of_code(code));
        }
    }
}
