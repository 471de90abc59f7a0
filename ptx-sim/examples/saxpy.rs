//! Runs a kernel and looks at what it did; then a kernel with two mistakes. `saxpy.ptx` is `saxpy.cu`, compiled by
//! `nvcc -ptx -lineinfo -arch=compute_80`.

use std::error::Error;

use ptx_sim::{Launch, LaunchError, Machine, Params};

const N: i32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut machine = Machine::default();
    let module = machine.load(include_str!("saxpy.ptx"))?;
    let bytes = |f: fn(i32) -> f32| (0..N).flat_map(|i| f(i).to_le_bytes()).collect::<Vec<u8>>();
    let (x, y) = (machine.memory.allocate(4 * N as usize)?, machine.memory.allocate(4 * N as usize)?);
    machine.memory.write(x, &bytes(|i| i as f32))?;
    machine.memory.write(y, &bytes(|_| 1.0))?;

    let params = Params::new().i32(N).f32(2.0).pointer(x).pointer(y);
    let report = machine.launch(&module, "saxpy", &Launch::new([4, 1, 1], [256, 1, 1]), params.bytes())?;
    let mut result = [0; 16];
    machine.memory.read(y, &mut result)?;
    let result = result.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    println!("saxpy: y begins with {:?}\n\n{}", result.collect::<Vec<_>>(), report.meter);

    // One block: its sum lands in the right place, but a barrier is missing on the way.
    let sums = machine.memory.allocate(4)?;
    let params = Params::new().i32(N).pointer(x).pointer(sums);
    let report = machine.launch(&module, "broken", &Launch::new([1; 3], [128, 1, 1]), params.bytes())?;
    println!("broken, one block: {} findings", report.findings.len());
    report.findings.iter().for_each(|finding| println!("{finding}"));

    // Two blocks: the second one's sum lands outside of the buffer.
    let sums = machine.memory.allocate(8)?;
    let params = Params::new().i32(N).pointer(x).pointer(sums);
    match machine.launch(&module, "broken", &Launch::new([2, 1, 1], [128, 1, 1]), params.bytes()) {
        Err(LaunchError::Fault(finding)) => println!("\nbroken, two blocks:\n{finding}"),
        other => println!("\nbroken, two blocks: {other:?}"),
    }
    Ok(())
}
