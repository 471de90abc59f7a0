//! `ldmatrix`, `stmatrix`, `movmatrix` against their definition (PTX ISA 9.7.14.5.15 to 17), and what they cost.

mod common;
mod kernels;

use common::{Random, Snippet};
use kernels::Kernel;
use ptx_sim::fault::Fault;
use ptx_sim::meter::{Class, Path, Traffic};
use ptx_sim::{Launch, Machine, Report};

/// Bytes of shared memory that tests use.
const SHARED: usize = 8192;

/// A snippet whose lanes first store `image` to shared memory: each lane 8-byte words `lane`, `lane + 32`, ...
///
/// `%x0` is each lane's address; `%t15` holds the beginning of shared memory.
fn run(addresses: &[u64], image: &[u64], outputs: &[&str], body: &str) -> (Vec<Vec<u64>>, Report) {
    let words = image.len() / 32;
    let inputs: Vec<&str> = ["b32"].into_iter().chain(vec!["b64"; words]).collect();
    let mut text = format!(".shared .align 128 .b8 tile[{SHARED}];\nmov.u32 %t15, tile;\nmov.u32 %t14, %laneid;\n");
    text += "mad.lo.u32 %t14, %t14, 8, %t15;\n";
    for word in 0..words {
        text += &format!("st.shared.b64 [%t14+{}], %x{};\n", 256 * word, word + 1);
    }
    text += "bar.warp.sync -1;\nadd.u32 %t13, %t15, %x0;\n";
    text += body;
    let rows: Vec<Vec<u64>> = (0..32)
        .map(|lane| [addresses[lane]].into_iter().chain((0..words).map(|word| image[32 * word + lane])).collect())
        .collect();
    Snippet { inputs: &inputs, outputs, body: &text }.report(&rows)
}

fn image(words: usize) -> Vec<u64> {
    let mut random = Random(5);
    (0..words).map(|_| random.next()).collect()
}

/// The 16-bit element at a byte address.
fn element(image: &[u64], address: u64) -> u64 {
    image[address as usize / 8] >> (8 * (address % 8)) & 0xffff
}

fn shared(report: &Report, path: Path) -> Traffic {
    report.meter.traffic.get(&path).copied().unwrap_or_default()
}

#[test]
fn ldmatrix_gives_each_lane_two_neighbours_of_its_row_or_column() {
    let image = image(512);
    let mut random = Random(9);
    let addresses: Vec<u64> = (0..32).map(|_| random.next() % 256 * 16).collect();
    for count in [1, 2, 4] {
        for (trans, space, address) in
            [("", ".shared", "%t13"), (".trans", ".shared::cta", "%t13"), (".trans", "", "%d0"), ("", "", "%d0")]
        {
            let registers: Vec<_> = (0..count).map(|i| format!("%y{i}")).collect();
            let body = format!(
                "mov.b32 %t0, 0;\nmov.b64 %d0, {{%t13, %t0}};\ncvta.shared.u64 %d0, %d0;\n\
                 ldmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 {{{}}}, [{address}];",
                registers.join(",")
            );
            let (results, report) = run(&addresses, &image, &["b32"; 4][..count], &body);
            assert!(report.findings.is_empty(), "{:?}", report.findings);
            for (lane, result) in results.iter().enumerate() {
                for (matrix, value) in result.iter().enumerate() {
                    // "row r of matrix i is given by thread 8i + r; thread t holds elements 2(t % 4) and 2(t % 4) + 1
                    // of row t / 4", and of column t / 4 with .trans.
                    let at =
                        |row: usize, column: usize| element(&image, addresses[8 * matrix + row] + 2 * column as u64);
                    let (major, minor) = (lane / 4, lane % 4 * 2);
                    let expected = match trans {
                        "" => at(major, minor) | at(major, minor + 1) << 16,
                        _ => at(minor, major) | at(minor + 1, major) << 16,
                    };
                    assert_eq!(*value, expected, "x{count}{trans} lane {lane} matrix {matrix}");
                }
            }
        }
    }
}

#[test]
fn explicit_elements_of_a_loaded_matrix() {
    // Element (row, column) is 100 * row + column; rows 16 bytes apart.
    let value = |row: u64, column: u64| 100 * row + column;
    let image: Vec<u64> =
        (0..32).map(|word| (0..4).map(|i| value(word / 2, word % 2 * 4 + i) << (16 * i)).sum()).collect();
    let addresses: Vec<u64> = (0..32).map(|lane| 16 * (lane % 8)).collect();
    let body = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%y0}, [%t13];\n\
                ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%y1}, [%t13];";
    let (results, _) = run(&addresses, &image, &["b32"; 2], body);
    let pair = |low: u64, high: u64| low | high << 16;
    assert_eq!(results[0], [pair(0, 1), pair(0, 100)]);
    assert_eq!(results[1], [pair(2, 3), pair(200, 300)]);
    assert_eq!(results[4], [pair(100, 101), pair(1, 101)]);
    assert_eq!(results[14], [pair(304, 305), pair(403, 503)]);
    assert_eq!(results[31], [pair(706, 707), pair(607, 707)]);
}

#[test]
fn stmatrix_is_the_inverse_of_ldmatrix() {
    let image = image(256);
    let addresses: Vec<u64> = (0..32).map(|lane| 16 * ((lane * 7) % 32)).collect();
    for trans in ["", ".trans"] {
        for count in [1, 2, 4] {
            let list = ["%t0", "%t1", "%t2", "%t3"][..count].join(",");
            let out: Vec<_> = (0..count).map(|i| format!("%y{i}")).collect();
            let body = format!(
                "ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{list}}}, [%t13];\n\
                 stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%t13+2048], {{{list}}};\nbar.warp.sync -1;\n\
                 ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {{{}}}, [%t13+2048];",
                out.join(",")
            );
            let (results, report) = run(&addresses, &image, &["b32"; 4][..count], &body);
            assert!(report.findings.is_empty(), "{:?}", report.findings);
            for (lane, result) in results.iter().enumerate() {
                for (matrix, value) in result.iter().enumerate() {
                    let address = addresses[8 * matrix + lane / 4] + 4 * (lane as u64 % 4);
                    let expected = element(&image, address) | element(&image, address + 2) << 16;
                    assert_eq!(*value, expected, "x{count}{trans} lane {lane}");
                }
            }
            let written = shared(&report, Path::SharedWrite);
            let (before, n) =
                (shared(&run(&addresses, &image, &["b32"], "mov.b32 %y0, 0;").1, Path::SharedWrite), count as u64);
            assert_eq!((written.bytes - before.bytes, written.wavefronts - before.wavefronts), (128 * n, n));
        }
    }
}

#[test]
fn movmatrix_transposes() {
    let rows: Vec<_> = (0..32).map(|lane| vec![(lane * 0x0002_0002) | 0x0001_0000]).collect();
    let body = "movmatrix.sync.aligned.m8n8.trans.b16 %y0, %x0;";
    let (results, report) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.report(&rows);
    for (lane, result) in results.iter().enumerate() {
        // Element (r, c) is 8r + c.
        let (row, column) = (lane as u64 / 4, lane as u64 % 4 * 2);
        assert_eq!(result[0], (8 * column + row) | ((8 * (column + 1) + row) << 16));
    }
    assert_eq!(report.meter.instructions(Class::Matrix).warp, 1);
}

/// Wavefronts and conflicts of an x4 load whose rows are at `address(row)`.
fn cost(address: impl Fn(u64) -> u64) -> (u64, u64) {
    let addresses: Vec<u64> = (0..32).map(address).collect();
    let body = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%t0,%t1,%t2,%t3}, [%t13];\nmov.b32 %y0, 0;";
    let read = shared(&run(&addresses, &image(1024), &["b32"], body).1, Path::SharedRead);
    assert_eq!((read.accesses, read.bytes), (1, 512));
    (read.wavefronts, read.conflicts)
}

#[test]
fn bank_conflicts_are_counted_per_matrix() {
    assert_eq!(cost(|row| 16 * row), (4, 0), "dense rows");
    assert_eq!(cost(|row| 128 * row), (32, 28), "rows of 128 bytes");
    assert_eq!(cost(|row| 144 * row), (4, 0), "rows padded to 144 bytes");
    assert_eq!(cost(|row| 64 * row), (16, 12), "rows of 64 bytes");
    assert_eq!(cost(|row| 128 * (row % 8) + 16 * ((row % 8) ^ (row / 8))), (4, 0), "swizzled");
    assert_eq!(cost(|_| 256), (4, 0), "one row for all is read once");
    assert_eq!(cost(|row| 128 * (row / 8) + 1024 * (row % 2)), (8, 4), "two rows in the same banks");
}

#[test]
fn rows_must_be_aligned_inside_of_shared_memory_and_written() {
    let fault = |body: &str| {
        let body = format!(
            ".shared .align 16 .b8 tile[512];\nmov.u32 %t0, %laneid;\nmad.lo.u32 %t1, %t0, 16, 0;\n{body}\n\
             mov.b32 %y0, 0;"
        );
        let ptx = Snippet { inputs: &[], outputs: &["b32"], body: &body }.ptx();
        let mut machine = Machine::default();
        let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let output = machine.memory.allocate(256).unwrap();
        let params: Vec<u8> = [0, output].iter().flat_map(|pointer: &u64| pointer.to_le_bytes()).collect();
        move |threads: u32| machine.launch(&module, "k", &Launch::new([1; 3], [threads, 1, 1]), &params)
    };
    let load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%t2}, ";
    let result = fault(&format!("{load}[%t1+8];"))(32);
    assert!(
        matches!(Machine::fault(&result), Some(Fault::Misaligned { address: 8, size: 16, alignment: 16, .. })),
        "{result:?}"
    );
    let result = fault(&format!("{load}[%t1+400];"))(32);
    assert!(matches!(Machine::fault(&result), Some(Fault::OutOfBounds { address: 512, size: 16, .. })), "{result:?}");
    let result = fault("mov.b64 %d0, 4096;\nldmatrix.sync.aligned.m8n8.x1.b16 {%t2}, [%d0];")(32);
    assert!(matches!(Machine::fault(&result), Some(Fault::Trap(why)) if why.contains("0x1000")), "{result:?}");
    let result = fault(&format!("{load}[%t1];"))(16);
    assert!(matches!(Machine::fault(&result), Some(Fault::Trap(why)) if why.contains("0x0000ffff")), "{result:?}");
    let report = fault(&format!("{load}[%t1];"))(32).unwrap();
    assert!(matches!(report.findings[0].fault, Fault::Uninitialised { .. }));
    // Lanes beyond those that supply addresses may hold anything.
    let body = "setp.ge.u32 %p0, %t0, 8;\n@%p0 mov.b32 %t1, 0xffffff01;\nld.param.u64 %d0, [out];\n";
    assert!(fault(&format!("{body}{load}[%t1];"))(32).is_ok());
}

#[test]
fn rows_of_other_lanes_need_a_barrier() {
    let body = |barrier: &str| {
        format!(
            ".shared .align 16 .b8 tile[512];\nmov.u32 %t0, %laneid;\nmov.u32 %t3, tile;\n\
             mad.lo.u32 %t1, %t0, 4, %t3;\n\
             st.shared.b32 [%t1], %t0;\n{barrier}\nmad.lo.u32 %t1, %t0, 16, %t3;\n\
             ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%y0}}, [%t1];"
        )
    };
    let findings =
        |body: &str| Snippet { inputs: &["b32"], outputs: &["b32"], body }.report(&vec![vec![0]; 32]).1.findings;
    assert!(matches!(findings(&body(""))[0].fault, Fault::Race { .. }));
    assert!(findings(&body("bar.warp.sync -1;")).is_empty());
    assert!(findings(&body("shfl.sync.idx.b32 %t2, %t0, 0, 31, -1;")).is_empty());
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let forms = [
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%t0,%t1,%t2}, [%x0];",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%t0}, [%x0];",
        "ldmatrix.sync.aligned.m8n8.x1.shared::cluster.b16 {%t0}, [%x0];",
        "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%t0}, [%x0];",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b8 {%t0}, [%x0];",
        "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%t0,%t1}, [%x0];",
        "ldmatrix.aligned.m8n8.x1.shared.b16 {%t0}, [%x0];",
        "stmatrix.sync.aligned.m8n8.x1.row.shared.b16 [%x0], {%t0};",
        "movmatrix.sync.aligned.m8n8.b16 %t0, %x0;",
    ];
    for body in forms {
        let (error, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let name = body.split(' ').next().unwrap();
        assert!(error.contains(&format!("line {line}:")) && error.contains(&format!("`{name}`")), "{body}: {error}");
    }
}

#[test]
fn rows_of_ldmatrix_and_stmatrix_that_do_not_count_may_be_anywhere() {
    // Of `.x2` the last 16 lanes have no row.
    for matrix in [
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r7, %r8}, [%r6];",
        "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r6], {%r0, %r0};",
    ] {
        for elsewhere in ["mapa.shared::cluster.u32 %r5, %r4, 1;", "mov.u32 %r5, 3;", "mov.u32 %r5, 0x10000;"] {
            let body = format!(
                "mov.u32 %r4, s;
                setp.lt.u32 %p1, %r0, 16;
                shl.b32 %r9, %r0, 4;
                st.shared.v4.u32 [%r9], {{%r0, %r0, %r0, %r0}};
                bar.sync 0;
                {elsewhere}
                selp.b32 %r6, %r9, %r5, %p1;
                {matrix}
                barrier.cluster.arrive;
                barrier.cluster.wait;"
            );
            Kernel { body: &body, blocks: 2, cluster: 2, ..Kernel::default() }.clean();
        }
    }
}
