//! Runs on the CPU: the only ones with times.

use latent_attention::device::{CpuLevel, Device};

use crate::program::harness::report::{Kind, Outcome, Report};
use crate::run;

#[test]
fn every_operation_is_timed_on_the_cpu_against_rates_of_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("times.json");
    let filter = ["--filter", "smollm-135m-d32", "--filter", "1x1024", "--sweep", "counted"];
    let device = ["--device", "cpu", "--threads", "2", "--json", file.to_str().unwrap()];
    run(&[&filter[..], &device].concat()).unwrap();
    let report = Report::read(&file).unwrap();
    assert_eq!((report.kind, report.left_out.len(), report.ceilings.len()), (Kind::Timed, 0, 2));
    let has_int8 = matches!(
        Device::cpu().unwrap().cpu_level(),
        Some(CpuLevel::Avx512Vnni | CpuLevel::Amx | CpuLevel::NeonDotprod)
    );
    let products = if has_int8 { "int8 products" } else { "f32 products" };
    for ceilings in &report.ceilings {
        assert!(ceilings.is_cpu() && ceilings.tb_per_s > 0.0 && ceilings.tflop_per_s > 0.0);
        assert_eq!(ceilings.products(), products);
    }
    assert!(!report.rows.is_empty());
    for row in &report.rows {
        let Outcome::Timed(timed) = &row.outcome else { panic!("{}: counted", row.id()) };
        assert!(timed.times.median_us > 0.0 && timed.fraction > 0.0, "{}", row.id());
    }
}
