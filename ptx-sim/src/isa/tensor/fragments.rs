//! Where the elements of matrices lie in the registers of a warp (PTX ISA 9.7.14.5, "Matrix Fragments for mma").
//!
//! The ISA prints one formula per shape and type. They are instances of three: with `parts` elements per register
//! (one of 64 or 32 bits, two of 16, four of 8, eight of 4), groupID = lane / 4 and threadID_in_group = lane % 4, four
//! threads share a row of 4 * parts consecutive elements. The tests check them against the printed formulas.

/// Row and column of an element of A, which has 8 or 16 `rows`: registers go through the rows first, then along k.
#[cfg(test)]
pub(super) fn a(rows: usize, parts: usize, lane: usize, register: usize, part: usize) -> (usize, usize) {
    let halves = rows / 8;
    (lane / 4 + 8 * (register % halves), lane % 4 * parts + part + register / halves * 4 * parts)
}

/// Row and column of an element of B, which has 8 columns.
#[cfg(test)]
pub(super) fn b(parts: usize, lane: usize, register: usize, part: usize) -> (usize, usize) {
    (lane % 4 * parts + part + register * 4 * parts, lane / 4)
}

/// Row and column of an element of C and D, which have 8 columns. f16 accumulators have two elements per register.
#[cfg(test)]
pub(super) fn accumulator(lane: usize, element: usize) -> (usize, usize) {
    (lane / 4 + 8 * (element / 2), lane % 4 * 2 + element % 2)
}

/// Row and column of an element of an 8x8 matrix of 16-bit elements, as `ldmatrix`, `stmatrix` and `movmatrix` lay it
/// out in one register per lane (PTX ISA 9.7.14.5.15).
pub(super) fn matrix(lane: usize, part: usize) -> (usize, usize) {
    (lane / 4, lane % 4 * 2 + part)
}
