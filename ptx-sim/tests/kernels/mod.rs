//! Runs kernels given as the lines of a body, and says where findings must be.
#![allow(dead_code)] // Each test file uses its own part of this.

use ptx_sim::fault::{Fault, Finding};
use ptx_sim::{Launch, LaunchError, Limits, Machine, Report};

/// A kernel `k` and its launch.
///
/// `%d0` and `%d1` are the addresses of two buffers of 32-bit words; `%r0` is `%tid.x`, `%r1` is `%ctaid.x`. Spare
/// registers are `%r2`.., `%d2`.., `%f0`.., `%h0`.., `%q0`.. (128 bits) and `%p0`... `s` is shared memory.
#[derive(Clone)]
pub struct Kernel<'a> {
    /// Module-level declarations.
    pub module: &'a str,
    /// Performance directives.
    pub directives: &'a str,
    /// One instruction a line: line `i` of it comes from line `100 + i` of `kernel.cu`.
    pub body: &'a str,
    pub blocks: u32,
    /// Blocks of a cluster.
    pub cluster: u32,
    pub threads: u32,
    pub shared: usize,
    /// The first buffer's words.
    pub input: Vec<u32>,
    /// Words of the second buffer, which nothing has written.
    pub output: usize,
    pub cores: usize,
    pub steps: u64,
    pub checked: bool,
    /// Most bytes that a cluster holds for what is in flight.
    pub held_bytes: u64,
}

impl Default for Kernel<'_> {
    fn default() -> Self {
        let (input, output) = ((0..64).collect(), 64);
        let (blocks, cluster, threads, shared, cores, steps, checked) = (1, 1, 32, 4096, 1, 100_000, true);
        let (module, directives, body, held_bytes) = ("", "", "", Limits::default().held_bytes);
        Self {
            module,
            directives,
            body,
            blocks,
            cluster,
            threads,
            shared,
            input,
            output,
            cores,
            steps,
            checked,
            held_bytes,
        }
    }
}

pub struct Ran {
    pub result: Result<Report, LaunchError>,
    pub input: Vec<u32>,
    pub output: Vec<u32>,
    /// Address of the first buffer.
    pub address: u64,
    ptx: String,
}

impl Kernel<'_> {
    pub fn ptx(&self) -> String {
        let mut text = format!(
            ".version 9.0\n.target sm_90a\n.address_size 64\n.file 1 \"kernel.cu\"\n{}\n\
             .visible .entry k(.param .u64 a, .param .u64 b) {}\n{{\n\
             .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .b64 %d<16>;\n.reg .f32 %f<16>;\n\
             .reg .b128 %q<4>;\n.shared .align 128 .b8 s[{}];\n\
             ld.param.u64 %d0, [a];\nld.param.u64 %d1, [b];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\n",
            self.module, self.directives, self.shared
        );
        for (i, line) in self.body.lines().enumerate() {
            text += &format!(".loc 1 {} 1\n{line}\n", 100 + i);
        }
        text + "ret;\n}\n"
    }

    pub fn run(&self) -> Ran {
        let ptx = self.ptx();
        let mut limits = Limits::default();
        (limits.cores, limits.steps, limits.held_bytes) = (self.cores, self.steps, self.held_bytes);
        let mut machine = Machine::new(limits);
        let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let (input, output) =
            (machine.memory.allocate(4 * self.input.len()).unwrap(), machine.memory.allocate(4 * self.output).unwrap());
        machine.memory.write(input, &bytes(&self.input)).unwrap();
        let params: Vec<u8> = [input, output].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
        let mut launch = Launch::new([self.blocks, 1, 1], [self.threads, 1, 1]).with_checked(self.checked);
        if self.cluster > 1 {
            launch = launch.with_cluster([self.cluster, 1, 1]);
        }
        let result = machine.launch(&module, "k", &launch, &params);
        let words = |address, count| {
            let mut bytes = vec![0; 4 * count];
            machine.memory.read(address, &mut bytes).unwrap();
            bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
        };
        let (input_words, output_words) = (words(input, self.input.len()), words(output, self.output));
        Ran { result, input: input_words, output: output_words, address: input, ptx }
    }

    /// Runs it; nothing may be found.
    pub fn clean(&self) -> Ran {
        let ran = self.run();
        let report = ran.report();
        assert!(report.findings.is_empty(), "{}\n{}", report.findings[0], ran.ptx);
        ran
    }

    /// Runs it; one fault must be found, by `thread` of `block` at the line of the body that contains `marker`.
    pub fn finds(&self, block: u32, thread: u32, marker: &str) -> Fault {
        let ran = self.run();
        let finding = match &ran.result {
            Err(LaunchError::Fault(finding)) => (**finding).clone(),
            Err(error) => panic!("{error}"),
            Ok(report) => {
                let all: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
                assert_eq!(all.len(), 1, "{}\n{}", all.join("\n"), ran.ptx);
                report.findings[0].clone()
            }
        };
        ran.check_place(&finding, block, thread, marker);
        finding.fault
    }

    /// Why it cannot be loaded.
    pub fn refusal(&self) -> String {
        let ptx = self.ptx();
        match Machine::default().load(&ptx) {
            Ok(_) => panic!("accepted:\n{}", self.body),
            Err(error) => error.to_string(),
        }
    }
}

impl Ran {
    pub fn report(&self) -> &Report {
        self.result.as_ref().unwrap_or_else(|error| panic!("{error}\n{}", self.ptx))
    }

    /// The PTX line that begins with a text.
    pub fn line_of(&self, text: &str) -> usize {
        let at = self.ptx.lines().position(|line| line.trim_start().starts_with(text));
        at.unwrap_or_else(|| panic!("no `{text}`")) + 1
    }

    pub fn check_place(&self, finding: &Finding, block: u32, thread: u32, marker: &str) {
        let at = self.ptx.lines().position(|line| line.contains(marker)).unwrap_or_else(|| panic!("no `{marker}`"));
        let location = self.ptx.lines().nth(at - 1).unwrap();
        let line: u32 = location.split(' ').nth(2).unwrap().parse().unwrap();
        assert_eq!(finding.kernel, "k");
        assert_eq!((finding.block, finding.thread), ([block, 0, 0], [thread, 0, 0]), "{finding}");
        assert_eq!(finding.ptx_line, at as u32 + 1, "{finding}");
        assert_eq!(finding.source, Some(("kernel.cu".into(), line)), "{finding}");
    }
}
