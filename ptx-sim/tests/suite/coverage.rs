//! What the suite has to cover: every instruction that the simulator knows, every kernel by a case.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::all;
use crate::run::{folder, ptx};

/// Roots of the ISA's instructions (PTX ISA 9.7).
const ISA: &str =
    "abs activemask add addc alloca and applypriority atom bar barrier bfe bfi bfind bmsk bra brev brkpt brx
    call clusterlaunchcontrol clz cnot copysign cos cp createpolicy cvt cvta discard div dp2a dp4a elect ex2 exit fence
    fma fns getctarank griddepcontrol isspacep istypep ld ldmatrix ldu lg2 lop3 mad mad24 madc mapa match max mbarrier
    membar min mma mov movmatrix mul mul24 multimem nanosleep neg not or pmevent popc prefetch prefetchu prmt rcp red
    redux rem ret rsqrt sad selp set setmaxnreg setp shf shfl shl shr sin slct sqrt st stackrestore stacksave stmatrix
    sub subc suld suq sured sust szext tanh tcgen05 tensormap testp tex tld4 trap txq vabsdiff vabsdiff2 vabsdiff4 vadd
    vadd2 vadd4 vavrg2 vavrg4 vmad vmax vmax2 vmax4 vmin vmin2 vmin4 vote vset vset2 vset4 vshl vshr vsub vsub2 vsub4
    wgmma wmma xor";

/// What kernels compiled for Ampere and later are made of: the suite has all of it, whatever the families say.
const REQUIRED: &str = "mov ld st add sub mul mad fma div rem min max abs neg shl shr shf bfe bfi prmt lop3 and
    or xor not cnot popc clz brev bfind cvt cvta setp selp set slct sad dp4a ex2 lg2 rcp sqrt rsqrt sin cos tanh
    atom red membar fence bar barrier shfl vote match redux activemask ldmatrix stmatrix movmatrix mma cp bra
    brx call ret exit nanosleep trap griddepcontrol elect addc subc madc testp copysign dp2a bmsk szext fns
    isspacep prefetch createpolicy vabsdiff4 mapa getctarank mbarrier setmaxnreg wgmma";

/// Beginnings of forms that differ from their root's others by more than a type.
const FORMS: &str = "add.sat add.cc add.rz add.rm add.rp add.rn.ftz add.rn.sat mul.wide mul.hi mad.wide
    mad.hi.sat fma.rn.relu fma.rn.sat fma.rn.bf16x2 fma.rn.f16x2 div.approx div.full min.NaN max.xorsign.abs
    min.relu shf.l.wrap shf.r.clamp bfind.shiftamt prmt.b32.f4e cvt.rni cvt.rzi.ftz cvt.sat cvt.pack.sat
    cvt.rna.tf32 cvt.rn.satfinite cvt.rn.relu setp.lt.and setp.geu setp.nan slct.ftz ld.global.nc ld.global.v4
    ld.acquire ld.volatile ld.shared ld.local ld.const ld.param st.local st.param st.shared st.global.v2
    st.release cvta.to.shared atom.global.cas atom.global.exch.b128 atom.global.v2 atom.shared
    red.global.add.noftz red.release bar.arrive bar.red.popc bar.warp barrier.cta.sync shfl.sync.bfly
    vote.sync.ballot match.all redux.sync.xor ldmatrix.sync.aligned.m8n8.x4.trans
    stmatrix.sync.aligned.m8n8.x4.trans mma.sync.aligned.m16n8k16.row.col.f32.bf16
    mma.sync.aligned.m16n8k8.row.col.f32.tf32 mma.sync.aligned.m16n8k64.row.col.s32.s4
    mma.sync.aligned.m16n8k32.row.col.satfinite mma.sync.aligned.m16n8k32.row.col.f32.e4m3
    mma.sync.aligned.m8n8k4.row.col.f64 cp.async.ca cp.async.cg cp.async.wait_group cp.async.wait_all brx.idx
    bra.uni call.uni barrier.cluster.arrive.release.aligned barrier.cluster.arrive.relaxed barrier.cluster.arrive
    barrier.cluster.wait.acquire mapa.shared::cluster.u32 mapa.u64 getctarank.shared::cluster getctarank.u64
    ld.shared::cluster.v2.b64 st.shared::cluster.v4 atom.shared::cluster.add red.shared::cluster.add.noftz
    atom.acquire.cluster.shared::cluster.cas isspacep.shared::cluster isspacep.shared::cta
    cvta.to.shared::cluster st.async.shared::cluster st.async.weak st.async.mbarrier
    red.async.relaxed.cluster.shared::cluster
    cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
    cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes
    cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint
    cp.reduce.async.bulk.global.shared::cta.bulk_group.add.noftz.bf16
    cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32
    cp.reduce.async.bulk.global.shared::cta.bulk_group.min.f16
    cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.inc.u32
    cp.async.bulk.prefetch.L2.global cp.async.bulk.commit_group cp.async.bulk.wait_group.read
    mbarrier.init.b64 mbarrier.init.shared mbarrier.inval.b64 mbarrier.inval.shared
    mbarrier.arrive.b64 mbarrier.arrive.shared::cta mbarrier.arrive.shared::cluster mbarrier.arrive.release
    mbarrier.arrive.relaxed mbarrier.arrive.noComplete mbarrier.arrive.expect_tx mbarrier.arrive_drop.release
    mbarrier.arrive_drop.noComplete mbarrier.arrive_drop.expect_tx mbarrier.expect_tx.shared
    mbarrier.expect_tx.relaxed mbarrier.complete_tx.shared mbarrier.complete_tx.relaxed mbarrier.test_wait.b64
    mbarrier.test_wait.shared mbarrier.test_wait.parity mbarrier.try_wait.acquire mbarrier.try_wait.relaxed
    mbarrier.try_wait.parity.acquire mbarrier.pending_count cp.async.mbarrier.arrive.shared
    cp.async.mbarrier.arrive.noinc fence.acquire fence.release fence.mbarrier_init fence.proxy.async
    fence.proxy.async.global fence.proxy.async.shared fence.proxy.async::generic fence.proxy.tensormap::generic.acquire
    fence.proxy.tensormap::generic.release
    cp.async.bulk.tensor.1d.shared::cluster cp.async.bulk.tensor.2d.shared::cluster cp.async.bulk.tensor.2d.shared::cta
    cp.async.bulk.tensor.3d.shared::cluster cp.async.bulk.tensor.4d.shared::cluster cp.async.bulk.tensor.5d.shared::cluster
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
    cp.async.bulk.tensor.1d.global cp.async.bulk.tensor.2d.global cp.async.bulk.tensor.3d.global
    cp.async.bulk.tensor.4d.global cp.async.bulk.tensor.5d.global cp.reduce.async.bulk.tensor
    cp.async.bulk.prefetch.tensor prefetch.tensormap
    setmaxnreg.inc setmaxnreg.dec createpolicy.fractional createpolicy.range.L2 createpolicy.range.global
    createpolicy.cvt ld.global.L2::cache_hint st.global.L2::cache_hint
    wgmma.fence wgmma.commit_group wgmma.wait_group wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16
    wgmma.mma_async.sync.aligned.m64n256k16.f16.f16.f16 wgmma.mma_async.sync.aligned.m64n120k16.f32.bf16.bf16
    wgmma.mma_async.sync.aligned.m64n40k8.f32.tf32.tf32 wgmma.mma_async.sync.aligned.m64n64k32.f32.e5m2.e4m3
    wgmma.mma_async.sync.aligned.m64n16k32.f16.e4m3.e5m2 wgmma.mma_async.sync.aligned.m64n240k32.s32.s8.s8
    wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.u8.satfinite";

/// Roots that a family knows and the suite leaves out, with the reason.
const ELSEWHERE: &[(&str, &str)] =
    &[("tensormap", "here a kind of proxy that `membar` and `fence` name, not the instruction")];

/// Names of the suite's files, without the ending.
fn files() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let sources = entries.filter(|path| path.extension().is_some_and(|ending| ending == "cu"));
    sources.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

/// The kernels of a file, with their text.
fn kernels(file: &str) -> BTreeMap<String, String> {
    let text = ptx(file);
    let bodies = text.split(".entry ").skip(1);
    bodies.map(|body| (body.split('(').next().unwrap().trim().to_string(), body.to_string())).collect()
}

/// Instructions of a text: the first word of each statement, behind labels and guards.
fn instructions(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for statement in text.lines().filter(|line| !line.trim().starts_with("//")).flat_map(|line| line.split([';', '{']))
    {
        let mut words = statement.split_whitespace();
        let word = words.find(|word| !word.starts_with('@') && !word.ends_with(':')).unwrap_or_default();
        let root = word.split('.').next().unwrap_or_default();
        if ISA.split_whitespace().any(|known| known == root) {
            found.insert(word.trim_end_matches(',').to_string());
        }
    }
    found
}

fn roots() -> BTreeSet<String> {
    let instructions = files().iter().flat_map(|file| instructions(&ptx(file))).collect::<Vec<_>>();
    instructions.iter().map(|word| word.split('.').next().unwrap().to_string()).collect()
}

/// The sources of the families, from all their folders.
fn sources(folder: &Path) -> Vec<String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![std::fs::read_to_string(path).unwrap()] })
        .collect()
}

/// Roots that stand in quotes in the sources of a folder below `src`: those that its families decode.
fn known_in(folder: &str) -> BTreeSet<String> {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder));
    let decoded = |root: &&str| sources.iter().any(|text| text.contains(&format!("\"{root}\"")));
    ISA.split_whitespace().filter(decoded).map(String::from).collect()
}

/// All roots that the families decode.
fn known() -> BTreeSet<String> {
    known_in("isa")
}

/// The crate's README.
const README: &str = include_str!("../../README.md");

/// A section of the README, by its heading.
fn section(heading: &str) -> &'static str {
    let (_, behind) = README.split_once(&format!("\n## {heading}\n")).unwrap();
    behind.split_once("\n## ").map_or(behind, |(section, _)| section)
}

/// Whether a section has a name in backticks, perhaps with parts behind it.
fn names(section: &str, name: &str) -> bool {
    let mut quoted = section.split('`').skip(1).step_by(2).flat_map(|text| text.split(['/', ' ']));
    quoted.any(|text| text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

#[test]
fn the_readme_names_every_instruction_that_is_not_known() {
    // Branches are the assembler's own.
    let known: BTreeSet<String> = known().into_iter().chain(known_in("assemble")).collect();
    let unknown = ISA.split_whitespace().filter(|root| !known.contains(*root)).chain(["tensormap"]);
    let section = section("What it does not know");
    // Video instructions stand there without the 2 and 4 of their relatives.
    let missing: Vec<_> =
        unknown.filter(|root| !names(section, root) && !names(section, root.trim_end_matches(['2', '4']))).collect();
    assert!(missing.is_empty(), "the README says nothing of {missing:?}");
    // Forms of roots that are known.
    for (instruction, name) in [
        ("st.bulk.weak.shared::cta [s], 8, 0;", "st.bulk"),
        ("tensormap.replace.tile.rank.shared::cta.b1024.b32 [s], 1;", "tensormap.replace"),
        ("mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {f,f,f,f},{r,r},{r,r},{f,f,f,f},r,0;", "mma.sp"),
        (
            "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {f,f,f,f}, d, d, r, 0, 1, 1, 1, 0, 0;",
            "wgmma.mma_async.sp",
        ),
        (
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {f,f,f,f,f,f,f,f},{r,r},{r,r},{f,f,f,f,f,f,f,f};",
            "mma.sync.m8n8k4",
        ),
        ("mov.u32 r, %clock_hi;", "%clock_hi"),
        ("mov.u32 r, %pm0;", "%pm0"),
        ("mov.u32 r, %envreg0;", "%envreg0"),
        ("mov.u32 r, %aggr_smem_size;", "%aggr_smem_size"),
        ("mov.u32 r, %reserved_smem_offset_begin;", "%reserved_smem_offset_begin"),
        ("mov.u64 d, %current_graph_exec;", "%current_graph_exec"),
    ] {
        let registers = ".reg .b32 r; .reg .b64 d; .reg .f32 f; .shared .align 128 .b8 s[128];";
        let ptx =
            format!(".version 9.0\n.target sm_90a\n.address_size 64\n.entry k() {{ {registers} {instruction} ret; }}");
        assert!(!ptx_sim::check(&ptx).is_empty(), "{name} is known, and the README says that it is not");
        assert!(names(section, name), "the README says nothing of {name}");
    }
}

#[test]
fn the_readme_names_every_instruction_that_is_more_than_arithmetic() {
    let arithmetic = known_in("isa/arithmetic");
    let rest = ["isa/memory", "isa/sync", "isa/tensor"].into_iter().flat_map(known_in);
    let excused = |root: &String| ELSEWHERE.iter().any(|(name, _)| name == root);
    let section = section("What it knows");
    let missing: BTreeSet<_> =
        rest.filter(|root| !arithmetic.contains(root) && !excused(root) && !names(section, root)).collect();
    assert!(missing.is_empty(), "the README says nothing of {missing:?}");
}

#[test]
fn every_instruction_that_the_simulator_knows_is_in_the_suite() {
    let covered = roots();
    let wanted = REQUIRED.split_whitespace().map(String::from).chain(known());
    let excused = |root: &String| ELSEWHERE.iter().any(|(name, _)| name == root);
    let missing: BTreeSet<_> = wanted.filter(|root| !covered.contains(root) && !excused(root)).collect();
    assert!(missing.is_empty(), "no kernel of the suite has {missing:?}");
}

#[test]
fn every_kind_of_form_is_in_the_suite() {
    let covered: BTreeSet<String> = files().iter().flat_map(|file| instructions(&ptx(file))).collect();
    let begins = |form: &&str| !covered.iter().any(|word| word.starts_with(form));
    let missing: Vec<_> = FORMS.split_whitespace().filter(begins).collect();
    assert!(missing.is_empty(), "no kernel of the suite has {missing:?}");
}

#[test]
fn every_kernel_has_a_case_and_every_case_its_instruction() {
    let mut kernels: BTreeMap<(String, String), String> = BTreeMap::new();
    for file in files() {
        kernels.extend(self::kernels(&file).into_iter().map(|(name, body)| ((file.clone(), name), body)));
    }
    let mut forms = BTreeSet::new();
    let mut tested = BTreeSet::new();
    for case in all() {
        let key = (case.file.to_string(), case.kernel.clone());
        let body = kernels.get(&key).unwrap_or_else(|| panic!("{}.ptx has no kernel {}", case.file, case.kernel));
        assert!(body.contains(&case.instruction), "{} of {} has no {}", case.kernel, case.file, case.instruction);
        forms.extend(instructions(body));
        assert!(tested.insert(key), "{} of {} is tested twice", case.kernel, case.file);
    }
    let untested: Vec<_> = kernels.keys().filter(|key| !tested.contains(*key)).collect();
    assert!(untested.is_empty(), "kernels without a case: {untested:?}");
    println!("{} kernels, {} forms, {} roots", tested.len(), forms.len(), roots().len());
}
