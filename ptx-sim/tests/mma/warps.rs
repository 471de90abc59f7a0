//! Runs `mma` instructions on matrices: one product per warp.

use super::common::{Random, Snippet};
use super::formats;
use super::printed::{Place, Shape, shape};

/// An instruction: shape, and types of D (and C), A and B.
#[derive(Clone, Copy, Debug)]
pub struct Mma(pub &'static str, pub &'static str, pub &'static str, pub &'static str);

/// Matrices as bits of their elements, row-major.
#[derive(Clone)]
pub struct Matrices {
    pub a: Vec<u64>,
    pub b: Vec<u64>,
    pub c: Vec<u64>,
}

impl Mma {
    /// Its fragments.
    pub fn shape(self) -> Shape {
        shape(self.0, self.2)
    }

    fn instruction(self, modifier: &str) -> String {
        let Self(shape, d, a, b) = self;
        let counts = self.registers();
        let list = |name: &str, first: usize, count: usize| {
            (first..first + count).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ")
        };
        let [na, nb, nc] = counts;
        format!(
            "mma.sync.aligned.{shape}.row.col{modifier}.{d}.{a}.{b}.{d} {{{}}}, {{{}}}, {{{}}}, {{{}}};",
            list("y", 0, nc),
            list("x", 0, na),
            list("x", na, nb),
            list("x", na + nb, nc)
        )
    }

    /// Registers of A, B and C.
    fn registers(self) -> [usize; 3] {
        let shape = self.shape();
        let per_register = |ty: &str| (32 / formats::bits(ty)).max(1);
        [(shape.a.len(), self.2), (shape.b.len(), self.3), (shape.c.len(), self.1)]
            .map(|(elements, ty)| elements / per_register(ty))
    }

    /// Runs one product per warp, and returns each D.
    pub fn run(self, modifier: &str, batch: &[Matrices]) -> Vec<Vec<u64>> {
        let Self(_, d, a, b) = self;
        let shape = self.shape();
        let counts = self.registers();
        let register = if d == "f64" { "b64" } else { "b32" };
        let inputs = vec![register; counts.iter().sum()];
        let outputs = vec![register; counts[2]];
        let body = self.instruction(modifier);
        let mut rows = Vec::new();
        for matrices in batch {
            for lane in 0..32 {
                let mut row = pack(&shape.a, lane, &matrices.a, shape.k, a);
                row.extend(pack(&shape.b, lane, &matrices.b, 8, b));
                row.extend(pack(&shape.c, lane, &matrices.c, 8, d));
                rows.push(row);
            }
        }
        let (results, report) = Snippet { inputs: &inputs, outputs: &outputs, body: &body }.report(&rows);
        let name = format!("{}.{d}.{a}.{b}.{d}", self.0);
        assert_eq!(report.meter.mma.into_iter().collect::<Vec<_>>(), [(name, batch.len() as u64)]);
        results
            .chunks(32)
            .map(|lanes| {
                let mut out = vec![0; shape.m * 8];
                for (lane, registers) in lanes.iter().enumerate() {
                    for (element, place) in shape.c.iter().enumerate() {
                        let (row, column) = place(lane);
                        out[row * 8 + column] = part(registers, element, d);
                    }
                }
                out
            })
            .collect()
    }

    /// Matrices of elements that `element` makes for each type.
    pub fn random(self, random: &mut Random, mut element: impl FnMut(&mut Random, &str) -> u64) -> Matrices {
        let Self(_, d, a, b) = self;
        let shape = self.shape();
        let mut fill = |count: usize, ty: &str| (0..count).map(|_| element(random, ty)).collect();
        Matrices { a: fill(shape.m * shape.k, a), b: fill(shape.k * 8, b), c: fill(shape.m * 8, d) }
    }
}

/// A lane's registers of a fragment.
fn pack(places: &[Place], lane: usize, matrix: &[u64], width: usize, ty: &str) -> Vec<u64> {
    let bits = formats::bits(ty);
    let parts = (32 / bits).max(1);
    let element = |place: &Place| {
        let (row, column) = place(lane);
        matrix[row * width + column]
    };
    let pack = |places: &[Place]| {
        places
            .iter()
            .enumerate()
            .map(|(i, place)| element(place) << (bits * i % 64))
            .fold(0, |packed, part| packed | part)
    };
    places.chunks(parts).map(pack).collect()
}

/// Element `index` of a lane's registers.
fn part(registers: &[u64], index: usize, ty: &str) -> u64 {
    let bits = formats::bits(ty);
    let parts = (32 / bits).max(1);
    let shifted = registers[index / parts] >> (bits * (index % parts) % 64);
    if bits == 64 { shifted } else { shifted & ((1 << bits) - 1) }
}
