//! What a launch may look like: dimensions, clusters, the kernel's own directives.

use ptx_sim::{Launch, LaunchError, Limits, Machine, Params, Report};

const HEADER: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

/// Launches a kernel with these directives that has one parameter, a buffer of 16 words per block: each block writes
/// its rank, ID and number of clusters.
fn clusters(directives: &str, launch: &Launch) -> Result<(Vec<[u32; 16]>, Report), LaunchError> {
    let registers = [
        "%cluster_ctarank",
        "%cluster_nctarank",
        "%is_explicit_cluster",
        "%clusterid.x",
        "%clusterid.y",
        "%nclusterid.x",
        "%nclusterid.y",
        "%cluster_ctaid.x",
        "%cluster_ctaid.y",
        "%cluster_nctaid.x",
        "%cluster_nctaid.y",
        "%ctaid.x",
        "%ctaid.y",
    ];
    let mut text = format!(
        "{HEADER}.visible .entry k(.param .u64 out) {directives}\n{{\n.reg .pred %p;\n.reg .b32 %r<4>;\n.reg .b64 %d<4>;\n\
         ld.param.u64 %d0, [out];\nmov.u32 %r0, %ctaid.y;\nmov.u32 %r1, %nctaid.x;\nmov.u32 %r2, %ctaid.x;\n\
         mad.lo.u32 %r0, %r0, %r1, %r2;\nmad.wide.u32 %d0, %r0, 64, %d0;\n"
    );
    for (i, register) in registers.iter().enumerate() {
        match *register {
            "%is_explicit_cluster" => text += "mov.pred %p, %is_explicit_cluster;\nselp.u32 %r3, 1, 0, %p;\n",
            register => text += &format!("mov.u32 %r3, {register};\n"),
        }
        text += &format!("st.global.u32 [%d0+{}], %r3;\n", 4 * i);
    }
    let mut machine = Machine::default();
    let module = machine.load(&(text + "ret;\n}\n")).unwrap();
    let blocks = launch.grid.iter().fold(1, |blocks: usize, &n| blocks.saturating_mul(n as usize)).min(64);
    let out = machine.memory.allocate(64 * blocks).unwrap();
    let report = machine.launch(&module, "k", launch, Params::new().pointer(out).bytes())?;
    let mut bytes = vec![0; 64 * blocks];
    machine.memory.read(out, &mut bytes).unwrap();
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>();
    Ok((words.chunks_exact(16).map(|words| words.try_into().unwrap()).collect(), report))
}

/// Launches blocks that write their place in their cluster and in the grid, 16 words each; by the block's linear index.
fn places(launch: &Launch) -> Vec<Vec<u32>> {
    let registers = ["cluster_ctaid", "cluster_nctaid", "clusterid", "nclusterid", "ctaid"];
    let registers = registers.iter().flat_map(|name| ["x", "y", "z"].map(|axis| format!("%{name}.{axis}")));
    let mut text = format!(
        "{HEADER}.visible .entry k(.param .u64 out)\n{{\n.reg .b32 %r<4>;\n.reg .b64 %d<2>;\nld.param.u64 %d0, [out];\n\
         mov.u32 %r0, %ctaid.z;\nmov.u32 %r1, %nctaid.y;\nmov.u32 %r2, %ctaid.y;\nmad.lo.u32 %r0, %r0, %r1, %r2;\n\
         mov.u32 %r1, %nctaid.x;\nmov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r0, %r0, %r1, %r2;\n\
         mad.wide.u32 %d0, %r0, 64, %d0;\n"
    );
    for (i, register) in registers.chain(["%cluster_ctarank".into()]).enumerate() {
        text += &format!("mov.u32 %r3, {register};\nst.global.u32 [%d0+{}], %r3;\n", 4 * i);
    }
    let mut machine = Machine::default();
    let module = machine.load(&(text + "ret;\n}\n")).unwrap();
    let mut bytes = vec![0; 64 * launch.grid.iter().product::<u32>() as usize];
    let out = machine.memory.allocate(bytes.len()).unwrap();
    machine.launch(&module, "k", launch, Params::new().pointer(out).bytes()).unwrap();
    machine.memory.read(out, &mut bytes).unwrap();
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>();
    words.chunks_exact(16).map(<[u32]>::to_vec).collect()
}

/// PTX ISA sections 10.12 to 10.17, by counting through the grid: cluster by cluster, and the blocks of each in order.
#[test]
fn blocks_know_their_place_in_three_dimensions() {
    for (grid, cluster) in
        [([6, 4, 6], [3, 1, 2]), ([4, 6, 2], [2, 2, 2]), ([2, 5, 7], [1, 5, 1]), ([3, 2, 8], [1, 1, 8])]
    {
        let found = places(&launch(grid).with_cluster(cluster));
        let mut seen = 0;
        for cz in 0..grid[2] / cluster[2] {
            for cy in 0..grid[1] / cluster[1] {
                for cx in 0..grid[0] / cluster[0] {
                    let mut rank = 0;
                    for z in 0..cluster[2] {
                        for y in 0..cluster[1] {
                            for x in 0..cluster[0] {
                                let block = [cluster[0] * cx + x, cluster[1] * cy + y, cluster[2] * cz + z];
                                let place = &found[((block[2] * grid[1] + block[1]) * grid[0] + block[0]) as usize];
                                let clusters = [grid[0] / cluster[0], grid[1] / cluster[1], grid[2] / cluster[2]];
                                let wanted = [[x, y, z], cluster, [cx, cy, cz], clusters, block].concat();
                                assert_eq!(place[..15], wanted, "{grid:?} in {cluster:?}");
                                assert_eq!(place[15], rank, "{block:?} of {grid:?} in {cluster:?}");
                                (rank, seen) = (rank + 1, seen + 1);
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(seen, found.len());
    }
}

/// As the driver: more than 8 blocks only where non-portable sizes are allowed, and never more than 16.
#[test]
fn a_cluster_has_as_many_blocks_as_the_limits_allow() {
    let run = |most: u32, cluster: [u32; 3]| {
        let mut limits = Limits::default();
        limits.cluster_blocks = most;
        let mut machine = Machine::new(limits);
        let module = machine.load(&format!("{HEADER}.visible .entry k()\n{{\nret;\n}}\n")).unwrap();
        machine.launch(&module, "k", &launch([32, 32, 1]).with_cluster(cluster), &[]).map_err(|error| error.to_string())
    };
    assert_eq!(Limits::default().cluster_blocks, 8);
    run(8, [4, 2, 1]).unwrap();
    run(16, [4, 4, 1]).unwrap();
    run(u32::MAX, [16, 1, 1]).unwrap();
    let why = run(8, [4, 4, 1]).unwrap_err();
    assert!(why.ends_with(
        "clusters of [4, 4, 1], 16 blocks: there are at most 8, unless `Limits::cluster_blocks` allows more"
    ));
    let why = run(u32::MAX, [8, 4, 1]).unwrap_err();
    assert!(why.ends_with("clusters of [8, 4, 1], 32 blocks: there are at most 16"), "{why}");
    let why = run(16, [2, 0, 1]).unwrap_err();
    assert!(why.ends_with("clusters of [2, 0, 1] blocks: there is at least one in each direction"), "{why}");
    let why = run(16, [2, 3, 1]).unwrap_err();
    assert!(why.ends_with("do not divide into clusters of [2, 3, 1]: 32 is no multiple of 3 in y"), "{why}");
}

fn launch(grid: [u32; 3]) -> Launch {
    Launch::new(grid, [1, 1, 1])
}

fn refusal(directives: &str, launch: &Launch) -> String {
    match clusters(directives, launch) {
        Err(LaunchError::Configuration(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_know_their_place_in_their_cluster() {
    let (blocks, _) = clusters("", &launch([4, 4, 1]).with_cluster([2, 4, 1])).unwrap();
    for (i, block) in blocks.iter().enumerate() {
        let (x, y) = (i as u32 % 4, i as u32 / 4);
        let wanted = [y * 2 + x % 2, 8, 1, x / 2, 0, 2, 1, x % 2, y, 2, 4, x, y];
        assert_eq!(block[..13], wanted, "block ({x},{y})");
    }
}

#[test]
fn a_kernel_may_say_how_large_its_clusters_are() {
    let (blocks, _) = clusters(".explicitcluster .reqnctapercluster 2, 1, 1", &launch([4, 1, 1])).unwrap();
    assert_eq!(blocks.iter().map(|block| block[0]).collect::<Vec<_>>(), [0, 1, 0, 1]);
    assert!(blocks.iter().all(|block| block[1] == 2 && block[2] == 1));
    let (blocks, _) = clusters("", &launch([2, 1, 1])).unwrap();
    assert!(blocks.iter().all(|block| block[..3] == [0, 1, 0]));
    let (blocks, _) = clusters(".explicitcluster", &launch([2, 1, 1]).with_cluster([1, 1, 1])).unwrap();
    assert!(blocks.iter().all(|block| block[..3] == [0, 1, 1]));
}

#[test]
fn a_launch_against_a_directive_is_refused() {
    let cases = [
        (".reqnctapercluster 2", launch([4, 1, 1]).with_cluster([4, 1, 1]), "clusters of [4, 1, 1] blocks"),
        (".reqnctapercluster 2", launch([3, 1, 1]), "do not divide into clusters"),
        (".explicitcluster", launch([4, 1, 1]), "`.explicitcluster` does not allow a launch without clusters"),
        (".maxclusterrank 4", launch([8, 1, 1]).with_cluster([8, 1, 1]), "clusters of 8 blocks"),
        (".maxclusterrank 4 .reqnctapercluster 2", launch([2, 1, 1]), "does not go with `.reqnctapercluster`"),
        (".maxntid 16, 2", Launch::new([1; 3], [33, 1, 1]), "`.maxntid 16, 2` does not allow 33 threads"),
        (".reqntid 32", Launch::new([1; 3], [16, 2, 1]), "`.reqntid 32` does not allow [16, 2, 1] threads"),
        (".blocksareclusters", launch([1; 3]), "counts blocks, not clusters"),
    ];
    for (directives, launch, wanted) in cases {
        let why = refusal(directives, &launch);
        assert!(why.contains(wanted), "{directives}: {why}");
    }
}

#[test]
fn dimensions_beyond_a_device_are_refused() {
    let cases = [
        launch([0, 1, 1]),
        launch([1, 65536, 1]),
        launch([u32::MAX; 3]),
        Launch::new([1; 3], [1025, 1, 1]),
        Launch::new([1; 3], [u32::MAX; 3]),
        Launch::new([1; 3], [1, 1, 65]),
        Launch::new([1; 3], [0, 1, 1]),
        launch([32, 1, 1]).with_cluster([32, 1, 1]),
        launch([4, 4, 2]).with_cluster([4, 4, 2]),
        launch([1; 3]).with_cluster([0, 1, 1]),
        launch([1; 3]).with_cluster([u32::MAX; 3]),
        launch([1; 3]).with_dynamic_shared(usize::MAX),
    ];
    for launch in cases {
        refusal("", &launch);
    }
}

#[test]
fn shared_memory_that_a_block_cannot_address_is_refused_whatever_the_limit() {
    let mut limits = Limits::default();
    limits.shared_bytes = usize::MAX;
    let mut machine = Machine::new(limits);
    let module = machine.load(&format!("{HEADER}.visible .entry k()\n{{\nret;\n}}\n")).unwrap();
    let run = |bytes| machine.launch(&module, "k", &launch([1; 3]).with_dynamic_shared(bytes), &[]);
    for bytes in [(1 << 24) + 1, 1 << 46, usize::MAX] {
        let refused = run(bytes).unwrap_err().to_string();
        assert_eq!(refused, format!("kernel `k`: needs {bytes} bytes of shared memory of 16777216"));
    }
    run(1 << 20).unwrap();
}

#[test]
fn all_of_dynamic_shared_memory_lies_behind_its_alignment() {
    // Four bytes of static shared memory, then 16 dynamic ones that begin on 16.
    let text = format!(
        "{HEADER}.extern .shared .align 16 .b8 dynamic[];\n.visible .entry k(.param .u64 out)\n{{\n.reg .b32 %r<4>;\n\
         .reg .b64 %d;\n.shared .align 4 .b8 fixed[4];\nmov.u32 %r0, dynamic;\nmov.u32 %r1, 7;\n\
         st.shared.u32 [fixed], %r1;\nst.shared.v4.u32 [%r0], {{%r1, %r1, %r1, %r1}};\nld.shared.u32 %r2, [%r0+12];\n\
         ld.param.u64 %d, [out];\nst.global.u32 [%d], %r0;\nst.global.u32 [%d+4], %r2;\nret;\n}}\n"
    );
    let mut machine = Machine::default();
    let module = machine.load(&text).unwrap();
    let out = machine.memory.allocate(8).unwrap();
    let launch = launch([1; 3]).with_dynamic_shared(16);
    let report = machine.launch(&module, "k", &launch, Params::new().pointer(out).bytes()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let mut bytes = [0; 8];
    machine.memory.read(out, &mut bytes).unwrap();
    assert_eq!(bytes, [16, 0, 0, 0, 7, 0, 0, 0]);
}

#[test]
fn modules_without_variables_in_global_memory_run_on_every_machine_and_others_are_refused_there() {
    let kernel = ".visible .entry k(.param .u64 out) {\n.reg .b32 %r;\n.reg .b64 %d;\nld.param.u64 %d, [out];\n\
                  mov.u32 %r, 7;\nst.global.u32 [%d], %r;\nret;\n}\n";
    let launch = Launch::new([1, 1, 1], [1, 1, 1]);
    let (mut first, mut second) = (Machine::default(), Machine::default());
    let out = second.memory.allocate(4).unwrap();
    let mut run = |text: String| {
        let module = first.load(&text).unwrap();
        (module.is_portable(), second.launch(&module, "k", &launch, Params::new().pointer(out).bytes()))
    };
    let (portable, ran) = run(format!("{HEADER}.const .u32 c = 5;\n{kernel}"));
    assert!(portable && ran.is_ok());
    let (portable, refused) = run(format!("{HEADER}.global .u32 v;\n{kernel}"));
    let message = refused.unwrap_err().to_string();
    assert!(!portable && message.contains("the memory of the machine that loaded it"), "{message}");
    let mut word = [0; 4];
    second.memory.read(out, &mut word).unwrap();
    assert_eq!(u32::from_le_bytes(word), 7);
}
