//! The fragment formulas as the PTX ISA prints them: for each shape, row and column of element `i` of a lane, with
//! groupID = lane >> 2 and threadID_in_group = lane % 4.

/// Row and column of one element in a lane.
pub type Place = Box<dyn Fn(usize) -> (usize, usize)>;

/// A shape: the places of a lane's elements of A, B and C.
pub struct Shape {
    pub m: usize,
    pub k: usize,
    pub a: Vec<Place>,
    pub b: Vec<Place>,
    pub c: Vec<Place>,
}

/// `formula(i, groupID, threadID_in_group)` for `count` elements.
fn places(count: usize, formula: fn(usize, usize, usize) -> (usize, usize)) -> Vec<Place> {
    (0..count).map(|i| Box::new(move |lane: usize| formula(i, lane >> 2, lane % 4)) as Place).collect()
}

/// The shape for multiplicands of a type.
pub fn shape(name: &str, multiplicand: &str) -> Shape {
    let bits = super::formats::bits(multiplicand);
    let (m, k, a, b) = match (name, bits) {
        // 9.7.14.5.2
        ("m8n8k4", 64) => (8, 4, places(1, |_, g, t| (g, t)), places(1, |_, g, t| (t, g))),
        // 9.7.14.5.3
        ("m8n8k16", 8) => (8, 16, places(4, |i, g, t| (g, t * 4 + i)), places(4, |i, g, t| (t * 4 + i, g))),
        // 9.7.14.5.6
        ("m16n8k4", 32) => {
            (16, 4, places(2, |i, g, t| (if i == 0 { g } else { g + 8 }, t)), places(1, |_, g, t| (t, g)))
        }
        // 9.7.14.5.7
        ("m16n8k8", 16) => (
            16,
            8,
            places(4, |i, g, t| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))),
            places(2, |i, g, t| (t * 2 + i, g)),
        ),
        ("m16n8k8", 32) => (
            16,
            8,
            places(4, |i, g, t| (if i == 0 || i == 2 { g } else { g + 8 }, if i < 2 { t } else { t + 4 })),
            places(2, |i, g, t| (if i == 0 { t } else { t + 4 }, g)),
        ),
        // 9.7.14.5.8
        ("m16n8k16", 16) => (
            16,
            16,
            places(8, |i, g, t| {
                let row = if i < 2 || (4..6).contains(&i) { g } else { g + 8 };
                (row, if i < 4 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 })
            }),
            places(4, |i, g, t| (if i < 2 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 }, g)),
        ),
        // 9.7.14.5.9
        ("m16n8k16", 8) => (
            16,
            16,
            places(8, |i, g, t| (if i < 4 { g } else { g + 8 }, t * 4 + (i & 3))),
            places(4, |i, g, t| (t * 4 + i, g)),
        ),
        // 9.7.14.5.10
        ("m16n8k32", 4) => (
            16,
            32,
            places(16, |i, g, t| (if i < 8 { g } else { g + 8 }, t * 8 + (i & 7))),
            places(8, |i, g, t| (t * 8 + i, g)),
        ),
        ("m16n8k32", 8) => (
            16,
            32,
            places(16, |i, g, t| {
                let row = if i < 4 || (8..12).contains(&i) { g } else { g + 8 };
                (row, if i < 8 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 })
            }),
            places(8, |i, g, t| (if i < 4 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 }, g)),
        ),
        // 9.7.14.5.11
        ("m16n8k64", 4) => (
            16,
            64,
            places(32, |i, g, t| {
                let row = if i < 8 || (16..24).contains(&i) { g } else { g + 8 };
                (row, if i < 16 { t * 8 + (i & 7) } else { t * 8 + (i & 7) + 32 })
            }),
            places(16, |i, g, t| (if i < 8 { t * 8 + (i & 7) } else { t * 8 + (i & 7) + 32 }, g)),
        ),
        other => panic!("no shape {other:?}"),
    };
    let c = match m {
        8 => places(2, |i, g, t| (g, t * 2 + (i & 1))),
        _ => places(4, |i, g, t| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))),
    };
    Shape { m, k, a, b, c }
}
