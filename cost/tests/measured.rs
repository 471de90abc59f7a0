//! The kernels that the committed rows were measured with cost what the committed calibration says, whatever this build's
//! kernels cost: their PTX is kept, and what the simulator counted of it.

use std::collections::BTreeMap;
use std::path::Path;

use latent_attention_cost::calibrate::{Calibration, SAME};
use latent_attention_cost::measured::{KEPT, Kept};
use latent_attention_cost::survey::Apart;
use latent_attention_cost::tools::{PINNED, Tools};
use ptx_sim::{Launch, Machine};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn kept(kernel: &str) -> Kept {
    Kept::read(&Path::new(ROOT).join("calibration"), kernel).unwrap()
}

#[test]
fn the_committed_counts_are_those_of_the_measured_kernels() {
    let strict = std::env::var_os("LATENT_ATTENTION_STRICT").is_some_and(|value| value == "1");
    let tools = match Tools::find(&Path::new(ROOT).join("../target")) {
        Ok(tools) => tools,
        Err(why) => {
            assert!(!strict, "{why}");
            eprintln!("left out: {why}");
            return;
        }
    };
    // Of the same PTX the pinned assembler makes the same machine code.
    let tolerance = if tools.version() == PINNED { 1e-9 } else { SAME };
    let survey = Calibration::committed().unwrap().survey;
    let (layer, merge) = survey.find(KEPT.0, KEPT.1).unwrap();
    let pairs = [(layer.kernel.as_str(), layer.tile, layer.rest), ("combine", merge.split, merge.rest)];
    for (kernel, unit, rest) in pairs {
        let kept = kept(kernel);
        let function = tools.machine_code(&kept.ptx, "sm_90a", kernel).unwrap();
        let [few, many] = &kept.launches;
        let anew = Apart::new(&function, [few, many], kept.units).unwrap();
        assert!(anew.unit.work.is_close(&unit, tolerance), "{kernel}: {:?} was {unit:?}", anew.unit.work);
        assert!(anew.rest.work.is_close(&rest, tolerance), "{kernel}: {:?} was {rest:?}", anew.rest.work);
    }
}

#[test]
fn the_simulator_counts_of_the_measured_merge_what_it_counted_then() {
    let kept = kept("combine");
    let (rank, threads) = (512, 128);
    for (splits, then) in kept.units.into_iter().zip(&kept.launches) {
        let mut machine = Machine::default();
        let module = machine.load(&kept.ptx).unwrap();
        let ones = |numbers: usize| vec![1.0f32; numbers].into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        let mut upload = |bytes: Vec<u8>| {
            let address = machine.memory.allocate(bytes.len()).unwrap();
            machine.memory.write(address, &bytes).unwrap();
            address
        };
        // struct CombineParams: partials and their lse, results and their lse, no starts; then one row of them.
        let addresses =
            [upload(ones(splits * rank)), upload(ones(splits)), upload(vec![0; 2 * rank]), upload(vec![0; 4]), 0];
        let numbers = [1, splits as u32, rank as u32, 0];
        let words =
            addresses.into_iter().flat_map(u64::to_le_bytes).chain(numbers.into_iter().flat_map(u32::to_le_bytes));
        let params: Vec<u8> = words.collect();
        let launch = Launch::new([1, 1, 1], [threads, 1, 1]).with_dynamic_shared(4 * splits).with_profile(true);
        let report = machine.launch(&module, "combine", &launch, &params).unwrap();
        let mut issued = vec![BTreeMap::new(); then.issued.len()];
        for executed in &report.profile {
            for (warp, &count) in executed.issued.iter().enumerate().filter(|&(_, &count)| count > 0) {
                issued[warp].insert(executed.ptx_line, count);
            }
        }
        assert_eq!(issued, then.issued, "{splits} splits");
    }
}
