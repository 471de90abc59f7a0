//! Runs a case on a back end and compares.

use std::collections::HashMap;
use std::path::PathBuf;

use ptx_sim::{Launch, LaunchError, Machine, Module, Report};

use crate::cases::Case;
use crate::cuda::Cuda;

/// The folder of the suite: where it was when this was compiled, or where `PTX_SIM_SUITE` says it is now.
pub fn folder() -> PathBuf {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/suite");
    std::env::var_os("PTX_SIM_SUITE").map_or_else(|| here.into(), PathBuf::from)
}

/// Where the suite keeps what nvcc makes of a file, which is named without its ending.
pub fn kept(file: &str) -> PathBuf {
    folder().join("ptx").join(format!("{file}.ptx"))
}

/// The PTX of a file of the suite.
pub fn ptx(file: &str) -> String {
    let path = kept(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Something that runs PTX: kernels of `(const u64 *in, u64 *out, int n)`.
pub trait Backend {
    /// Runs the case's kernel with one thread per row of `input`; returns the words of `out`, which began as zeros.
    /// `None` if it lacks the instruction, as GPUs of other generations do.
    fn run(&mut self, case: &Case, input: &[u64], words: usize) -> Option<Vec<u64>>;
}

/// The back end that `PTX_SIM_DEVICE` names: the simulator, or with `cuda` or `cuda:N` a GPU.
pub fn backend() -> Box<dyn Backend> {
    match gpu() {
        None => Box::new(Simulator::default()),
        Some(number) => Box::new(Cuda::new(number)),
    }
}

/// The number of the GPU that `PTX_SIM_DEVICE` names, if it names one.
pub fn gpu() -> Option<usize> {
    match std::env::var("PTX_SIM_DEVICE").as_deref() {
        Err(_) | Ok("" | "simulated") => None,
        Ok("cuda") => Some(0),
        Ok(other) => {
            let number = other.strip_prefix("cuda:").and_then(|number| number.parse().ok());
            Some(number.unwrap_or_else(|| panic!("PTX_SIM_DEVICE={other}: expected simulated, cuda or cuda:N")))
        }
    }
}

/// The simulator.
#[derive(Default)]
pub struct Simulator {
    machine: Machine,
    modules: HashMap<&'static str, Module>,
}

impl Simulator {
    /// Runs a case; returns also what the launch reports.
    pub fn launch(&mut self, case: &Case, input: &[u64], words: usize) -> Result<(Report, Vec<u64>), LaunchError> {
        let load = || self.machine.load(&ptx(case.file)).unwrap_or_else(|error| panic!("{}.ptx: {error}", case.file));
        let module = self.modules.entry(case.file).or_insert_with(load);
        let bytes: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (from, to) =
            (self.machine.memory.allocate(bytes.len()).unwrap(), self.machine.memory.allocate(8 * words).unwrap());
        self.machine.memory.write(from, &bytes).unwrap();
        self.machine.memory.write(to, &vec![0; 8 * words]).unwrap();
        let n = case.rows.len() as u32;
        let mut params: Vec<u8> = [from, to].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
        params.extend(n.to_le_bytes());
        params.extend(&case.extra);
        for map in &case.maps {
            let map = map.at(from, to).encode().unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
            params.resize(params.len().next_multiple_of(128), 0);
            params.extend(map.bytes());
        }
        let mut launch = Launch::new([n.div_ceil(case.threads), 1, 1], [case.threads, 1, 1])
            .with_dynamic_shared(case.dynamic_shared);
        if case.cluster > 1 {
            launch = launch.with_cluster([case.cluster, 1, 1]);
        }
        let report = self.machine.launch(module, &case.kernel, &launch, &params)?;
        let mut result = vec![0; 8 * words];
        self.machine.memory.read(to, &mut result).unwrap();
        self.machine.memory.free(from);
        self.machine.memory.free(to);
        let words = result.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        Ok((report, words))
    }
}

impl Backend for Simulator {
    fn run(&mut self, case: &Case, input: &[u64], words: usize) -> Option<Vec<u64>> {
        let (report, result) =
            self.launch(case, input, words).unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
        assert!(report.findings.is_empty(), "{}: {:?}", case.kernel, report.findings);
        Some(result)
    }
}

/// Compares all results of a case. The error says how many are wrong, and names the first.
pub fn check(backend: &mut dyn Backend, case: &Case) -> Result<(), String> {
    let input: Vec<u64> = case.rows.iter().flatten().copied().collect();
    let Some(result) = backend.run(case, &input, case.outputs * case.rows.len()) else { return Ok(()) };
    let expected = (case.expected)(&case.rows);
    assert_eq!(expected.len(), case.rows.len(), "{}", case.kernel);
    let (mut wrong, mut first) = (0, String::new());
    for (index, (row, want)) in case.rows.iter().zip(&expected).enumerate() {
        assert_eq!(want.len(), case.outputs, "{}", case.kernel);
        let got = &result[index * case.outputs..][..case.outputs];
        for (word, (got, want)) in got.iter().zip(want).enumerate() {
            if !case.tolerance.accepts(*got, *want) {
                if wrong == 0 {
                    first = format!("row {index} {row:x?}, result {word}: got {got:#x}, expected {want:#x}");
                }
                wrong += 1;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        _ => Err(format!("{} of {}: {wrong} wrong ({:?}), {first}", case.kernel, case.file, case.tolerance)),
    }
}
