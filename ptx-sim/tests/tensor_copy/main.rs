//! Tensor copies misused: each fault is found at its line, by name, and the mended kernel passes. What copies make of
//! boxes is in the suite.

mod random;

use ptx_sim::fault::{Fault, Finding};
use ptx_sim::meter::Path;
use ptx_sim::tensor_map::{DataType, TensorMap, Tiled};
use ptx_sim::{Launch, LaunchError, LoadError, Machine, Params, Report};

/// Rows of the matrix, and words of a row.
const ROWS: usize = 32;
const COLUMNS: usize = 64;

const INIT: &str = "mbarrier.init.shared::cta.b64 [bar], 1;\n";
const EXPECT: &str = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 1024;\n";
const COPY: &str =
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];\n";
const WAIT: &str = "again: mbarrier.try_wait.parity.shared::cta.b64 %p0, [bar], 0;\n@!%p0 bra again;\n";
const READ: &str = "ld.shared.u32 %r5, [tile];\nst.global.u32 [%rd0], %r5;\n";

/// A kernel of one thread: `%rd0` is the address of a word of output, `%rd1` that of the tensor map, and the box's corner
/// is `%r1`, `%r2`.
struct Kernel {
    body: String,
    /// Variables of the module.
    variables: String,
    cluster: u32,
    threads: u32,
    /// Bytes of the parameter `map`, which a kernel need not use.
    map: Vec<u8>,
}

/// The matrix, in boxes of 8 rows of 32 words.
fn matrix(address: u64) -> Tiled {
    Tiled::new(DataType::U32, address, &[COLUMNS as u64, ROWS as u64], &[4 * COLUMNS as u64], &[32, 8])
}

/// The machine, and where the matrix and the output lie. The word of row `y` and column `x` is `256 y + x`.
fn machine() -> (Machine, u64, u64) {
    let mut machine = Machine::default();
    let (input, output) = (machine.memory.allocate(4 * ROWS * COLUMNS).unwrap(), machine.memory.allocate(4).unwrap());
    let words = (0..ROWS as u32).flat_map(|y| (0..COLUMNS as u32).map(move |x| 256 * y + x));
    machine.memory.write(input, &words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    (machine, input, output)
}

fn kernel(body: &str) -> Kernel {
    let (_, input, _) = machine();
    let map = matrix(input).encode().unwrap().bytes().to_vec();
    Kernel { body: body.into(), variables: String::new(), cluster: 1, threads: 1, map }
}

impl Kernel {
    fn ptx(&self) -> String {
        format!(
            ".version 8.6\n.target sm_90a\n.address_size 64\n{}\n\
             .entry k(.param .u64 out, .param .align 128 .b8 map[128]) {{\n\
             .reg .pred %p<2>;\n.reg .b16 %h<2>;\n.reg .b32 %r<10>;\n.reg .b64 %rd<6>;\n\
             .shared .align 1024 .b8 tile[2048];\n.shared .align 8 .b64 bar;\n\
             ld.param.u64 %rd0, [out];\nmov.b64 %rd1, map;\ncvta.param.u64 %rd1, %rd1;\n\
             mov.u32 %r1, 4;\nmov.u32 %r2, 2;\nmov.u32 %r6, %cluster_ctarank;\n{}ret;\n}}\n",
            self.variables, self.body
        )
    }

    fn launch(&self) -> (Result<Report, LaunchError>, u32) {
        let (mut machine, _, output) = machine();
        let ptx = self.ptx();
        let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let launch = Launch::new([self.cluster, 1, 1], [self.threads, 1, 1]).with_cluster([self.cluster, 1, 1]);
        let params = Params::new().pointer(output).bytes_aligned(&self.map, 128);
        let result = machine.launch(&module, "k", &launch, params.bytes());
        let mut word = [0; 4];
        machine.memory.read(output, &mut word).unwrap();
        (result, u32::from_le_bytes(word))
    }

    /// The fault that ends the launch, at the line that begins with `marker`.
    fn fails(&self, marker: &str) -> Fault {
        match self.launch().0 {
            Err(LaunchError::Fault(finding)) => self.at(&finding, marker),
            other => panic!("{other:?}\n{}", self.ptx()),
        }
    }

    /// The only thing that the checker finds, at the line that begins with `marker`.
    fn finds(&self, marker: &str) -> Fault {
        match self.launch().0 {
            Ok(report) if report.findings.len() == 1 => self.at(&report.findings[0], marker),
            other => panic!("{other:?}\n{}", self.ptx()),
        }
    }

    fn at(&self, finding: &Finding, marker: &str) -> Fault {
        let ptx = self.ptx();
        let line = ptx.lines().position(|line| line.starts_with(marker)).unwrap();
        assert_eq!(finding.ptx_line as usize, line + 1, "{finding}\n{ptx}");
        assert!(ptx.lines().nth(line).unwrap().contains(&finding.instruction), "{finding}");
        finding.fault.clone()
    }

    /// The word of output of a kernel without fault.
    fn clean(&self) -> (Report, u32) {
        let (result, word) = self.launch();
        let report = result.unwrap_or_else(|error| panic!("{error}\n{}", self.ptx()));
        assert!(report.findings.is_empty(), "{:?}\n{}", report.findings, self.ptx());
        (report, word)
    }
}

fn whole() -> String {
    [INIT, EXPECT, COPY, WAIT, READ].concat()
}

#[test]
fn a_copy_that_is_waited_for_is_clean_and_counted() {
    let (report, word) = kernel(&whole()).clean();
    assert_eq!(word, 2 * 256 + 4);
    let (from, to) = (report.meter.traffic[&Path::BulkGlobalRead], report.meter.traffic[&Path::BulkSharedWrite]);
    // Each row of 128 bytes begins in the middle of a sector.
    assert_eq!((from.accesses, from.bytes, from.sectors), (1, 1024, 8 * 5));
    assert_eq!((to.accesses, to.bytes, to.wavefronts, to.conflicts), (1, 1024, 8, 0));
}

#[test]
fn bytes_outside_of_the_tensor_arrive_and_are_not_read() {
    let body = format!("mov.u32 %r1, 60;\nmov.u32 %r2, 30;\n{}", whole());
    let (report, word) = kernel(&body).clean();
    assert_eq!((word, report.meter.traffic[&Path::BulkGlobalRead].bytes), (30 * 256 + 60, 2 * 4 * 4));
}

#[test]
fn maps_in_global_and_constant_memory_are_read() {
    let (_, input, _) = machine();
    let bytes = matrix(input).encode().unwrap().bytes().map(|byte| byte.to_string()).join(", ");
    for space in ["global", "const"] {
        let variables = format!(".{space} .align 64 .b8 other[128] = {{{bytes}}};");
        let body = format!("mov.u64 %rd1, other;\ncvta.{space}.u64 %rd1, %rd1;\n{}", whole());
        assert_eq!(Kernel { variables, ..kernel(&body) }.clean().1, 2 * 256 + 4, "{space}");
    }
}

#[test]
fn data_read_before_the_wait_is_in_flight() {
    let early = [INIT, EXPECT, COPY, READ, WAIT].concat();
    assert!(matches!(kernel(&early).finds("ld.shared.u32"), Fault::CopyInFlight { .. }));
    let overwritten = [INIT, EXPECT, COPY, "st.shared.u32 [tile+1020], %r1;\n", WAIT].concat();
    assert!(matches!(kernel(&overwritten).finds("st.shared.u32"), Fault::CopyInFlight { .. }));
    kernel(&overwritten.replace("1020", "1024")).clean();
}

#[test]
fn a_wrong_number_of_bytes_is_a_deadlock() {
    for bytes in ["1008", "1040"] {
        let fault = kernel(&whole().replace("1024", bytes)).fails("again: mbarrier.try_wait");
        let wanted = format!("of {bytes} expected bytes 1024 have come");
        assert!(matches!(&fault, Fault::Deadlock(why) if why.contains(&wanted)), "{fault}");
    }
}

#[test]
fn the_bytes_of_a_copy_order_nothing_else_of_the_thread_that_has_issued_it() {
    // The first warp stores and copies, the second expects the bytes and waits for them.
    let body = |between: &str| {
        let copy = format!("@%p1 st.shared.u32 [tile+1024], %r1;\n{between}\n@%p1 {COPY}");
        format!(
            "mov.u32 %r6, %tid.x;\nsetp.eq.u32 %p1, %r6, 0;\n@%p1 {INIT}bar.sync 0;\n@%p1 {copy}\
             setp.eq.u32 %p1, %r6, 32;\n@%p1 {EXPECT}setp.ge.u32 %p1, %r6, 32;\n@!%p1 bra end;\n{WAIT}\
             ld.shared.u32 %r5, [tile+1024];\nend:\n",
        )
        .replace("@%p1 @%p1", "@%p1")
    };
    let fault = Kernel { threads: 64, ..kernel(&body("")) }.finds("ld.shared.u32");
    assert!(matches!(fault, Fault::Race { action: "read", .. }), "{fault}");
    Kernel { threads: 64, ..kernel(&body("bar.sync 0;")) }.clean();
}

#[test]
fn ordinary_stores_before_a_copy_need_a_proxy_fence() {
    let body = format!("st.shared.u32 [tile+16], %r1;\n{}", whole());
    assert!(matches!(kernel(&body).finds("cp.async.bulk.tensor"), Fault::NoProxyFence { .. }));
    kernel(&body.replacen(INIT, &format!("fence.proxy.async.shared::cta;\n{INIT}"), 1)).clean();
}

fn trap(fault: Fault) -> String {
    match fault {
        Fault::Trap(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn something_else_is_no_tensor_map() {
    let mut changed = kernel(&whole());
    for bytes in [vec![0; 128], vec![0xFF; 128]] {
        changed.map = bytes;
        assert_eq!(trap(changed.fails("cp.async")), "there is no tensor map at parameter address 0x80");
    }
    changed.map = kernel("").map;
    changed.map[70] ^= 1;
    assert_eq!(trap(changed.fails("cp.async")), "there is no tensor map at parameter address 0x80");
}

#[test]
fn a_map_lies_in_memory_that_instructions_do_not_write() {
    let mut shared = kernel(&format!("mov.u64 %rd1, tile;\ncvta.shared.u64 %rd1, %rd1;\n{}", whole()));
    assert!(trap(shared.fails("cp.async")).contains("0x0 of shared memory"));
    shared.body =
        format!(".local .align 64 .b8 own[128];\nmov.u64 %rd1, own;\ncvta.local.u64 %rd1, %rd1;\n{}", whole());
    assert!(trap(shared.fails("cp.async")).contains("of local memory"));
    shared.body = format!("mov.u64 %rd1, 4096;\n{}", whole());
    assert!(matches!(shared.fails("cp.async"), Fault::OutOfBounds { .. }));
}

#[test]
fn a_map_is_aligned_to_64_bytes_and_a_box_to_128() {
    let text = kernel(&format!("add.s64 %rd1, %rd1, 32;\n{}", whole())).fails("cp.async").to_string();
    assert_eq!(text, "read of a tensor map of 128 bytes at parameter address 0xa0 is not aligned to 64 bytes");
    let text = kernel(&whole().replacen("[tile]", "[tile+64]", 1)).fails("cp.async").to_string();
    assert_eq!(text, "tensor copy of 1024 bytes at shared address 0x40 is not aligned to 128 bytes");
    kernel(&whole().replacen("[tile]", "[tile+128]", 1).replace("ld.shared.u32 %r5, [tile]", "mov.u32 %r5, 0")).clean();
    let text = kernel(&whole().replace("[bar];\nagain", "[bar+4];\nagain")).fails("cp.async").to_string();
    assert_eq!(text, "mbarrier of 8 bytes at shared address 0x804 is not aligned to 8 bytes");
}

#[test]
fn a_box_fits_into_shared_memory() {
    let text = kernel(&whole().replacen("[tile]", "[tile+1152]", 1)).fails("cp.async").to_string();
    assert!(text.starts_with("bulk operation of 1024 bytes at shared address 0x480: the block has 20"), "{text}");
    let (_, input, _) = machine();
    // The largest box that a map can have: 2^43 bytes.
    let strides = [16, 16, 16, 16];
    let huge = Tiled::new(DataType::U64, input, &[1 << 32; 5], &strides, &[256; 5]).encode().unwrap();
    let body = whole().replace(".2d", ".5d").replace("{%r1, %r2}", "{%r1, %r2, %r1, %r2, %r1}");
    let text = Kernel { map: huge.bytes().to_vec(), ..kernel(&body) }.fails("cp.async").to_string();
    assert!(text.starts_with("bulk operation of 8796093022208 bytes at shared address 0x0"), "{text}");
}

#[test]
fn the_rank_is_that_of_the_map() {
    let body = whole().replace(".2d", ".3d").replace("{%r1, %r2}", "{%r1, %r2, %r1}");
    let why = trap(kernel(&body).fails("cp.async"));
    assert_eq!(why, "a tensor map of rank 2 in an instruction of 3 dimensions");
}

#[test]
fn a_tensor_lies_in_its_allocation() {
    let (_, input, _) = machine();
    let map = |tiled: Tiled| tiled.encode().unwrap().bytes().to_vec();
    let long = Tiled { global_dim: vec![COLUMNS as u64, ROWS as u64 + 1], ..matrix(input) };
    let body = format!("mov.u32 %r2, 30;\n{}", whole());
    kernel(&body).clean();
    let fault = Kernel { map: map(long), ..kernel(&body) }.fails("cp.async");
    assert!(matches!(fault, Fault::OutOfBounds { action: "tensor copy", .. }), "{fault}");
    // Beyond all addresses.
    let far = Tiled { global_dim: vec![64, 1 << 32], global_strides: vec![(1 << 40) - 16], ..matrix(input) };
    let body = format!("mov.u32 %r2, 2147483647;\n{}", whole());
    let fault = Kernel { map: map(far), ..kernel(&body) }.fails("cp.async");
    assert!(matches!(fault, Fault::OutOfBounds { action: "tensor copy", .. }), "{fault}");
}

#[test]
fn a_copy_completes_on_an_initialised_mbarrier_of_its_own_block() {
    let fault = kernel(&[COPY, READ].concat()).fails("cp.async");
    assert!(matches!(&fault, Fault::Mbarrier(why) if why.contains("completes on shared address 0x800")), "{fault}");
}

/// Both blocks of a cluster have an `mbarrier` and stay to the end, and `%r7` and `%r8` are the tile and the `mbarrier` of block 1.
fn pair(body: &str) -> Kernel {
    let ready =
        "fence.mbarrier_init.release.cluster;\nbarrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n";
    let remote =
        "mapa.shared::cluster.u32 %r7, tile, 1;\nmapa.shared::cluster.u32 %r8, bar, 1;\nsetp.eq.u32 %p1, %r6, 0;\n";
    let last = "barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n";
    Kernel { cluster: 2, ..kernel(&format!("{INIT}{EXPECT}{ready}{remote}{body}{last}")) }
}

#[test]
fn a_copy_reaches_another_block_of_the_cluster() {
    let copy = COPY.replace("[tile]", "[%r7]").replace("[bar]", "[%r8]");
    let kernel = pair(&format!("@%p1 {copy}@%p1 bra done;\n{WAIT}{READ}done: "));
    let (report, word) = kernel.clean();
    assert_eq!(word, 2 * 256 + 4);
    assert_eq!(report.meter.traffic[&Path::RemoteWrite].bytes, 1024);
    // An `mbarrier` of one's own is not where that copy can complete.
    let own = COPY.replace("[tile]", "[%r7]");
    let fault = pair(&format!("@%p1 {own}")).fails(&format!("@%p1 {}", own.trim()));
    assert!(matches!(&fault, Fault::Mbarrier(why) if why.contains("block 1 completes on one of block 0")), "{fault}");
    let cta = copy.replace("shared::cluster", "shared::cta");
    let why = trap(pair(&format!("@%p1 {cta}")).fails(&format!("@%p1 {}", cta.trim())));
    assert!(why.starts_with("`.shared::cta` address") && why.ends_with("of the cluster's block 1"), "{why}");
}

#[test]
fn a_multicast_goes_to_blocks_of_the_cluster() {
    let multicast = COPY.replace("::bytes ", "::bytes.multicast::cluster ").replace("[bar];", "[bar], %h0;");
    let body = format!("mov.u16 %h0, 2;\n{}", [INIT, EXPECT, &multicast, WAIT, READ].concat());
    let why = trap(kernel(&body).fails("cp.async"));
    assert_eq!(why, "a multicast to the blocks 0b10 of a cluster of 1");
    let (_, word) = kernel(&body.replace("%h0, 2", "%h0, 1")).clean();
    assert_eq!(word, 2 * 256 + 4);
}

/// Fills the tile and stores it.
fn stored() -> String {
    let fill = "mov.u32 %r3, 0;\nfill: st.shared.u32 [%r4], %r3;\nadd.u32 %r4, %r4, 4;\nadd.u32 %r3, %r3, 1;\n\
                setp.ne.u32 %p0, %r3, 256;\n@%p0 bra fill;\n";
    format!(
        "mov.u32 %r4, tile;\n{fill}fence.proxy.async;\n{STORE}{COMMIT}{DONE}ld.global.u32 %r5, [%rd2];\nst.global.u32 [%rd0], %r5;\n"
    )
}

const STORE: &str = "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd1, {%r1, %r2}], [tile];\n";
const COMMIT: &str = "cp.async.bulk.commit_group;\n";
const DONE: &str = "cp.async.bulk.wait_group 0;\n";

/// The same with `%rd2` as the address of the word at the box's corner.
fn stores(body: &str) -> Kernel {
    let (_, input, _) = machine();
    kernel(&format!("mov.u64 %rd2, {};\n{body}", input + 4 * (2 * COLUMNS as u64 + 4)))
}

#[test]
fn a_store_arrives_when_its_group_is_waited_for() {
    let (report, word) =
        stores(&stored().replace("ld.global.u32 %r5, [%rd2]", "ld.global.u32 %r5, [%rd2+260]")).clean();
    // One row of the matrix and one column further.
    assert_eq!(word, 33);
    let (from, to) = (report.meter.traffic[&Path::BulkSharedRead], report.meter.traffic[&Path::BulkGlobalWrite]);
    assert_eq!((from.accesses, from.bytes, from.wavefronts), (1, 1024, 8));
    assert_eq!((to.accesses, to.bytes, to.sectors), (1, 1024, 8 * 5));
    let early = stored().replace(DONE, "").replace("ret;", "");
    assert_eq!(stores(&format!("{early}{DONE}")).clean().1, 2 * 256 + 4);
    // Reading the source is not writing the destination.
    let read = stored().replace("wait_group 0", "wait_group.read 0");
    assert_eq!(stores(&format!("{read}{DONE}")).clean().1, 2 * 256 + 4);
}

#[test]
fn the_source_of_a_store_stays_until_it_is_read() {
    let written = format!("{STORE}st.shared.u32 [tile+1020], %r1;\n");
    let early = stored().replace(STORE, &written);
    assert!(matches!(stores(&early).finds("st.shared.u32 [tile+1020]"), Fault::ReadInFlight { .. }));
    let behind = format!("{}st.shared.u32 [tile+1020], %r1;\n", stored().replace("wait_group 0", "wait_group.read 0"));
    stores(&behind).clean();
    let unfenced = stored().replace("fence.proxy.async;\n", "");
    assert!(matches!(stores(&unfenced).finds(STORE.trim()), Fault::NoProxyFence { .. }));
}

#[test]
fn a_store_begins_inside_of_the_tensor_and_ends_where_it_does() {
    let negative = format!("mov.u32 %r1, -1;\n{}", stored());
    let why = trap(stores(&negative).fails(STORE.trim()));
    assert!(why.starts_with("a tensor store at coordinates [-1, 2]"), "{why}");
    let (report, _) = stores(&format!("mov.u32 %r1, 60;\nmov.u32 %r2, 30;\n{}", stored())).clean();
    assert_eq!(report.meter.traffic[&Path::BulkGlobalWrite].bytes, 2 * 4 * 4);
}

#[test]
fn reductions_are_of_types_that_the_isa_has() {
    let (_, input, _) = machine();
    let reduce = |operation: &str, ty| {
        let tiled = Tiled { data_type: ty, ..matrix(input) };
        let form = format!("cp.reduce.async.bulk.tensor.2d.global.shared::cta.{operation}.bulk_group");
        let body = stored().replace("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group", &form);
        (Kernel { map: tiled.encode().unwrap().bytes().to_vec(), ..stores(&body) }, form)
    };
    assert_eq!(reduce("add", DataType::U32).0.clean().1, 2 * 256 + 4);
    for (operation, ty) in
        [("add", DataType::Tf32), ("min", DataType::F32), ("inc", DataType::S32), ("xor", DataType::F32)]
    {
        let (kernel, form) = reduce(operation, ty);
        let why = trap(kernel.fails(&form));
        assert_eq!(why, format!("there is no such reduction of a tensor of {}", ty.name()));
    }
    // What conversions do on this way is not said.
    for ty in [DataType::F32Ftz, DataType::Tf32, DataType::Tf32Ftz] {
        let tiled = Tiled { data_type: ty, ..matrix(input) };
        let kernel = Kernel { map: tiled.encode().unwrap().bytes().to_vec(), ..stores(&stored()) };
        assert!(trap(kernel.fails(STORE.trim())).contains(ty.name()));
    }
}

#[test]
fn each_lane_copies_a_box_of_its_own() {
    let all = "mov.u32 %r7, %tid.x;\nshl.b32 %r7, %r7, 10;\nmov.u32 %r8, tile;\nadd.u32 %r8, %r8, %r7;\n\
               mov.u32 %r2, %tid.x;\nsetp.eq.u32 %p1, %r2, 0;\n";
    let expect = EXPECT.replace("1024", "2048");
    let copy = COPY.replace("[tile]", "[%r8]");
    let body = format!(
        "{all}@%p1 {INIT}@%p1 {expect}bar.warp.sync -1;\n{copy}{WAIT}\
                        ld.shared.u32 %r5, [tile+1024];\nst.global.u32 [%rd0], %r5;\n"
    );
    let kernel = Kernel { threads: 2, ..kernel(&body) };
    assert_eq!(kernel.clean().1, 256 + 4);
}

#[test]
fn forms_that_are_left_out_are_refused_with_line_and_instruction() {
    let forms = [
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile::gather4.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2, %r1}], [bar], {%h0};",
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col::w.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2, %r1}], [bar], {%h0, %h1};",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.cta_group::2 [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.global.shared::cta.tile::scatter4.bulk_group [%rd1, {%r1, %r2}], [tile];",
        "cp.async.bulk.tensor.3d.global.shared::cta.im2col_no_offs.bulk_group [%rd1, {%r1, %r2, %r1}], [tile];",
        "cp.async.bulk.tensor.6d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.bulk_group [tile], [%rd1, {%r1, %r2}];",
        "cp.async.bulk.tensor.2d.shared.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes.multicast::cluster [tile], [%rd1, {%r1, %r2}], [bar], %h0;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.tile.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1+128, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [map, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%h0, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [tile], [%rd1, {%r1, %r2}], [bar], %r1;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%r1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar], %h0;",
        "cp.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%rd1, {%r1, %r2}], [tile];",
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd1, {%r1, %r2}], [tile];",
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.min.bulk_group [%rd1, {%r1, %r2}], [tile];",
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.exch.bulk_group [%rd1, {%r1, %r2}], [tile];",
        "cp.reduce.async.bulk.tensor.2d.shared::cluster.global.add.mbarrier::complete_tx::bytes [tile], [%rd1, {%r1, %r2}], [bar];",
        "cp.async.bulk.tensor.2d.global.shared::cluster.bulk_group [%rd1, {%r1, %r2}], [tile];",
        "fence.proxy.tensormap::generic.acquire.gpu [%rd1], 64;",
        "fence.proxy.tensormap::generic.acquire.gpu;",
        "fence.proxy.tensormap::generic.release.gpu [%rd1], 128;",
        "fence.proxy.tensormap::generic.sc.gpu;",
        "cp.async.bulk.prefetch.tensor.3d.L2.global.im2col [%rd1, {%r1, %r2, %r1}], {%h0};",
        "cp.async.bulk.prefetch.tensor.2d.global [%rd1, {%r1, %r2}];",
        "cp.async.bulk.prefetch.tensor.2d.L2.global.L2::cache_hint [%rd1, {%r1, %r2}];",
        "tensormap.replace.tile.global_address.global.b1024.b64 [%rd1], %rd2;",
    ];
    for form in forms {
        let ptx = kernel(&format!("{form}\n")).ptx();
        let line = ptx.lines().position(|line| line == form).unwrap() + 1;
        match Machine::default().load(&ptx) {
            Err(LoadError::Decode(error)) => {
                let name = form.split([' ', ';']).next().unwrap();
                let text = error.to_string();
                assert!(text.starts_with(&format!("line {line}: `{name}`:")), "{text}");
            }
            other => panic!("{form}: {:?}", other.map(|_| ())),
        }
    }
    assert_eq!(size_of::<TensorMap>(), 128);
}
