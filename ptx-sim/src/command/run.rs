//! `run`.

use ptx_sim::{Launch, LaunchError, Limits, Machine, Module};

use super::argument::{Argument, Buffer};
use super::files::{complain, print, read};
use super::options::Run;
use super::report::{Outcome, Output};

pub fn run(options: &Run) -> Result<bool, String> {
    let text = read(&options.file)?;
    let mut limits = Limits::default();
    (limits.steps, limits.cores) = (options.steps, options.cores);
    limits.cluster_blocks = options.cluster_blocks;
    let mut machine = Machine::new(limits);
    let module = match machine.load(&text) {
        Ok(module) => module,
        Err(error) => {
            complain(&options.file, &error);
            return Ok(false);
        }
    };
    let (params, buffers) = parameters(options, &mut machine, &module)?;
    let mut launch = Launch::new(options.grid, options.block).with_dynamic_shared(options.shared);
    launch.cluster = options.cluster;
    launch.checked = !options.unchecked;
    let (report, fault) = match machine.launch(&module, &options.kernel, &launch, &params) {
        Ok(report) => (Some(report), None),
        Err(LaunchError::Fault(finding)) => (None, Some(*finding)),
        Err(error) => return Err(error.to_string()),
    };
    let outputs = buffers.into_iter().filter(|(buffer, _)| buffer.output).map(|(buffer, address)| {
        let mut bytes = vec![0; buffer.size()];
        machine.memory.read(address, &mut bytes).map_err(|fault| fault.to_string())?;
        Ok(Output { buffer, bytes })
    });
    let outputs = outputs.collect::<Result<Vec<_>, String>>()?;
    if let Some(file) = &options.dump {
        let bytes: Vec<u8> = outputs.iter().flat_map(|output| output.bytes.iter().copied()).collect();
        std::fs::write(file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let outcome = Outcome { kernel: &options.kernel, outputs, report, fault };
    print(&if options.json { outcome.json() } else { outcome.text() })?;
    Ok(outcome.is_clean())
}

/// The buffers that parameters point to, with their addresses.
type Buffers<'a> = Vec<(&'a Buffer, u64)>;

/// The parameter block, and its buffers.
fn parameters<'a>(options: &'a Run, machine: &mut Machine, module: &Module) -> Result<(Vec<u8>, Buffers<'a>), String> {
    let kernel = &options.kernel;
    let Some((size, slots)) = module.parameters(kernel) else {
        return Err(format!("no kernel `{kernel}`; the module has {:?}", module.kernels()));
    };
    if slots.len() != options.arguments.len() {
        return Err(format!("`{kernel}` takes {} arguments, got {}", slots.len(), options.arguments.len()));
    }
    let (mut block, mut buffers) = (vec![0; size], Vec::new());
    for (i, (argument, (offset, size))) in options.arguments.iter().zip(slots).enumerate() {
        let bytes = match argument {
            Argument::Value(bytes) | Argument::Bytes(bytes) => bytes.clone(),
            Argument::Buffer(buffer) => {
                let address = machine.memory.allocate(buffer.size());
                let address = address.map_err(|fault| format!("{}: {fault}", buffer.name))?;
                if let Some(bytes) = buffer.bytes() {
                    machine.memory.write(address, &bytes).map_err(|fault| fault.to_string())?;
                }
                buffers.push((buffer, address));
                address.to_le_bytes().to_vec()
            }
        };
        if bytes.len() != size {
            return Err(format!("argument {} has {} bytes, `{kernel}` takes {size} there", i + 1, bytes.len()));
        }
        block[offset..offset + size].copy_from_slice(&bytes);
    }
    Ok((block, buffers))
}
