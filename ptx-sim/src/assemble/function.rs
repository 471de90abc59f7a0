//! A function's body: places variables, resolves labels, has instructions decoded.

use std::collections::HashMap;

use super::effect;
use super::families;
use super::flow;
use super::places::{Declared, Places, Uses, places};
use super::products::ProductRegisters;
use super::variables::{LOCAL_BYTES, PARAM_BYTES, SHARED_BYTES, reserve, size_of};
use crate::ast::{Function, Instruction, Operand, Space, Statement, Type, Variable};
use crate::decode::{DecodeError, Entity, Names, Operands};
use crate::exec::{Action, Call, Callee, Code, Effect, Flow, FrameSize, Guard, Slot, Source, Step, register_number};
use crate::isa::builtin;
use crate::meter::Class;

/// Most registers of a function.
const REGISTERS: usize = 1 << 16;

type Result<T> = std::result::Result<T, DecodeError>;

/// Labels by the scope they stand in: inline PTX may use the same label in several scopes.
#[derive(Default)]
struct Labels {
    places: HashMap<(usize, String), usize>,
    tables: HashMap<(usize, String), Vec<String>>,
}

struct Assembler<'a> {
    names: Names,
    labels: Labels,
    /// Numbers of the open scopes, outermost first; scopes are numbered in the order in which they open.
    scopes: Vec<usize>,
    opened: usize,
    code: Code,
    /// Registers other than predicates, in the order of their declaration.
    declared: Vec<Declared>,
    /// Where the function begins.
    line: u32,
    /// Functions of the module, for calls.
    module: &'a Names,
    /// Instructions that cannot be decoded.
    errors: &'a mut Vec<DecodeError>,
}

/// Assembles one function. `shared` bytes of static shared memory are taken already. Instructions that cannot be decoded
/// become `errors`, and are missing in the result.
pub(super) fn assemble(
    function: &Function,
    module: &Names,
    shared: usize,
    errors: &mut Vec<DecodeError>,
) -> Result<Code> {
    let code = Code {
        name: function.name.clone(),
        entry: function.entry,
        steps: Vec::new(),
        builtin: if function.body.is_none() { builtin::find(&function.name) } else { None },
        frame: FrameSize::default(),
        unwritten: Vec::new(),
        params: Vec::new(),
        returns: Vec::new(),
        shared_bytes: shared,
        directives: function.directives.clone(),
    };
    let (names, labels, line) = (module.clone(), Labels::default(), function.line);
    let (scopes, declared) = (vec![0], Vec::new());
    let mut assembler = Assembler { names, labels, scopes, opened: 0, code, declared, line, module, errors };
    assembler.names.open();
    assembler.parameters(function)?;
    if let Some(body) = &function.body {
        assembler.find_labels(body);
        assembler.place_registers(body)?;
        assembler.body(body)?;
    }
    Ok(assembler.code)
}

/// Registers of a declaration with this many elements each: a 128-bit register counts as two.
fn width(ty: Type, vector: usize) -> usize {
    if ty == Type::B128 { 2 * vector } else { vector }
}

impl Assembler<'_> {
    fn parameters(&mut self, function: &Function) -> Result<()> {
        for (variables, is_result) in [(&function.params, false), (&function.returns, true)] {
            for variable in variables {
                let slot = self.parameter(variable, function.entry)?;
                let list = if is_result { &mut self.code.returns } else { &mut self.code.params };
                list.push(slot);
            }
        }
        Ok(())
    }

    fn parameter(&mut self, variable: &Variable, entry: bool) -> Result<Slot> {
        if variable.space != Space::Param {
            let message = format!("parameter `{}` is not in .param space", variable.name);
            return Err(DecodeError::new(variable.line, message));
        }
        let count = variable.count.unwrap_or(1);
        let size = size_of(variable, count);
        let offset = reserve(&mut self.code.frame.param_bytes, variable, count, PARAM_BYTES)?;
        let entity = if entry { Entity::KernelParam(offset) } else { Entity::FrameParam { offset, size } };
        self.names.define(&variable.name, entity);
        Ok(Slot { offset, size })
    }

    fn open(&mut self) {
        self.opened += 1;
        self.scopes.push(self.opened);
    }

    /// Labels and names are those of a new scope.
    fn enter_scope(&mut self) {
        self.open();
        self.names.open();
    }

    /// They are those of the scope around it again.
    fn leave_scope(&mut self) {
        self.scopes.pop();
        self.names.close();
    }

    fn find_labels(&mut self, body: &[Statement]) {
        let mut step = 0;
        for statement in body {
            let scope = self.scopes.last().copied().unwrap_or(0);
            match statement {
                Statement::Label(name) => drop(self.labels.places.insert((scope, name.clone()), step)),
                Statement::BranchTargets { name, targets } => {
                    self.labels.tables.insert((scope, name.clone()), targets.clone());
                }
                Statement::Open => self.open(),
                Statement::Close => drop(self.scopes.pop()),
                Statement::Instruction(_) => step += 1,
                _ => {}
            }
        }
        (self.scopes, self.opened) = (vec![0], 0);
    }

    fn body(&mut self, body: &[Statement]) -> Result<()> {
        let mut location = None;
        let mut products = ProductRegisters::default();
        for statement in body {
            match statement {
                Statement::Open => self.enter_scope(),
                Statement::Close => self.leave_scope(),
                Statement::Registers { ty, vector, names } => self.registers(*ty, *vector, names)?,
                Statement::Variable(variable) => self.variable(variable)?,
                Statement::Location(place) => location = Some(*place),
                Statement::Instruction(instruction) => {
                    let decoded = self.guard(instruction).and_then(|guard| Ok((guard, self.instruction(instruction)?)));
                    let (line, text) = (instruction.line, instruction.name());
                    match decoded {
                        Ok((guard, (class, action))) => {
                            products.note(self.code.steps.len(), instruction, &self.names);
                            let (effect, product_registers) = (effect::of(instruction, class), Box::default());
                            let flow = flow::of(instruction, class, guard.as_ref(), &self.names);
                            self.code.steps.push(Step {
                                guard,
                                action,
                                class,
                                effect,
                                flow,
                                product_registers,
                                line,
                                text,
                                location,
                            });
                        }
                        Err(error) => self.errors.push(error),
                    }
                }
                Statement::Label(_) | Statement::BranchTargets { .. } | Statement::CallPrototype(_) => {}
            }
        }
        // Running off the end is a return.
        let last = self.code.steps.last().map_or(0, |step| step.line);
        let (text, action) = ("ret".into(), Action::Return);
        let (class, effect, product_registers) = (Class::Control, Effect::Private, Box::default());
        self.code.steps.push(Step {
            guard: None,
            action,
            class,
            effect,
            flow: Flow::default(),
            product_registers,
            line: last,
            text,
            location,
        });
        products.finish(&mut self.code.steps);
        Ok(())
    }

    /// Finds out which registers may share a place, and gives each of them one.
    fn place_registers(&mut self, body: &[Statement]) -> Result<()> {
        let mut uses: Vec<Uses> = Vec::new();
        self.names.open();
        for statement in body {
            match statement {
                Statement::Open => self.enter_scope(),
                Statement::Close => self.leave_scope(),
                Statement::Registers { ty, vector, names } => self.registers(*ty, *vector, names)?,
                // Hides a register of that name.
                Statement::Variable(variable) => self.names.define(&variable.name, Entity::FrameLocal(0)),
                Statement::Instruction(instruction) => {
                    let find = |name: &str| match self.names.find(name) {
                        Some(Entity::Register { index, .. }) => Some(index),
                        _ => None,
                    };
                    let mut used = Uses::of(instruction, &find);
                    let operands = Operands { instruction, names: &self.names };
                    // What has no target is an error, which decoding reports.
                    used.targets = match operands.root() {
                        "bra" => self.label(&operands, 0).into_iter().collect(),
                        "brx" => self.table(&operands).unwrap_or_default(),
                        _ => Vec::new(),
                    };
                    uses.push(used);
                }
                Statement::Label(_)
                | Statement::BranchTargets { .. }
                | Statement::CallPrototype(_)
                | Statement::Location(_) => {}
            }
        }
        self.names.close();
        (self.scopes, self.opened) = (vec![0], 0);
        let declared = std::mem::take(&mut self.declared);
        let Places { of, used: [narrow, wide], unwritten } = places(&declared, &uses);
        let number = |(place, declared): (usize, &Declared)| register_number(place, declared.is_wide);
        let numbers: Vec<usize> = of.into_iter().zip(&declared).map(number).collect();
        self.code.unwritten = unwritten.into_iter().map(|register| numbers[register]).collect();
        self.names.place_registers(numbers);
        (self.code.frame.narrow_registers, self.code.frame.wide_registers) = (narrow, wide);
        self.code.frame.predicates = 0;
        Ok(())
    }

    /// Declares registers. They are numbered in the order of their declaration, predicates apart.
    fn registers(&mut self, ty: Type, vector: usize, names: &[(String, Option<u32>)]) -> Result<()> {
        for (name, count) in names {
            let width = width(ty, vector);
            let wanted = width * count.unwrap_or(1) as usize;
            if self.declared.len() + self.code.frame.predicates + wanted > REGISTERS {
                let message = format!("registers `{name}` of `{}`: more than {REGISTERS} in all", self.code.name);
                return Err(DecodeError::new(self.line, message));
            }
            let first = if ty == Type::Pred { self.code.frame.predicates } else { self.declared.len() };
            if ty == Type::Pred {
                self.code.frame.predicates += wanted;
            } else {
                // The parts of a register that has several lie side by side.
                let register = Declared { is_wide: ty.size() > 4, fixed: width > 1 };
                self.declared.extend(std::iter::repeat_n(register, wanted));
            }
            let entity = |index| match ty {
                Type::Pred => Entity::Predicate(index),
                _ => Entity::Register { index, ty },
            };
            match count {
                Some(count) if width == 1 => self.names.define_range(name, first, *count, ty),
                Some(count) => {
                    for i in 0..*count as usize {
                        self.names.define(&format!("{name}{i}"), entity(first + width * i));
                    }
                }
                None => {
                    self.names.define(name, entity(first));
                    if vector > 1 {
                        for (i, suffix) in ["x", "y", "z", "w"].iter().take(vector).enumerate() {
                            self.names.define(&format!("{name}.{suffix}"), entity(first + width / vector * i));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable) -> Result<()> {
        let count = variable.count.unwrap_or(0);
        let entity = match variable.space {
            Space::Local => {
                Entity::FrameLocal(reserve(&mut self.code.frame.local_bytes, variable, count, LOCAL_BYTES)?)
            }
            Space::Param => {
                let offset = reserve(&mut self.code.frame.param_bytes, variable, count, PARAM_BYTES)?;
                Entity::FrameParam { offset, size: size_of(variable, count) }
            }
            Space::Shared if variable.count.is_none() => Entity::DynamicShared { align: variable.align },
            Space::Shared => {
                let at = reserve(&mut self.code.shared_bytes, variable, count, SHARED_BYTES)?;
                Entity::Memory(Space::Shared, at as u64)
            }
            space => {
                let message = format!("variable `{}` in {space:?} space inside a function", variable.name);
                return Err(DecodeError::new(variable.line, message));
            }
        };
        self.names.define(&variable.name, entity);
        Ok(())
    }

    fn guard(&self, instruction: &Instruction) -> Result<Option<Guard>> {
        let Some((name, negated)) = &instruction.guard else { return Ok(None) };
        match self.names.find(name) {
            Some(Entity::Predicate(predicate)) => Ok(Some(Guard { predicate, negated: *negated })),
            _ => Err(DecodeError::new(instruction.line, format!("`{name}` is no predicate"))),
        }
    }

    fn instruction(&self, instruction: &Instruction) -> Result<(Class, Action)> {
        let operands = Operands { instruction, names: &self.names };
        let action = match operands.root() {
            "bra" => Action::Branch { target: self.label(&operands, 0)? },
            "brx" => self.branch_indexed(&operands)?,
            "call" => self.call(&operands)?,
            "ret" => Action::Return,
            "exit" => Action::Exit,
            _ => {
                let decoded = families::ALL.iter().find_map(|decode| decode(&operands).transpose());
                return match decoded {
                    Some(decoded) => decoded.map(|(class, run)| (class, Action::Run(run))),
                    None => operands.error("unknown instruction"),
                };
            }
        };
        Ok((Class::Control, action))
    }

    /// The step that operand `index`, a label, stands before.
    fn label(&self, operands: &Operands, index: usize) -> Result<usize> {
        match operands.operand(index)? {
            Operand::Name(name) => self.find_label(operands, name),
            other => operands.error(format!("expected a label, found {other:?}")),
        }
    }

    fn find_label(&self, operands: &Operands, name: &str) -> Result<usize> {
        let visible = self.scopes.iter().rev();
        match visible.filter_map(|scope| self.labels.places.get(&(*scope, name.to_string()))).next() {
            Some(step) => Ok(*step),
            None => operands.error(format!("there is no label `{name}`")),
        }
    }

    fn branch_indexed(&self, operands: &Operands) -> Result<Action> {
        let index = operands.source(0, Type::U32)?;
        Ok(Action::BranchIndexed { index, targets: self.table(operands)? })
    }

    /// The targets of an indexed branch.
    fn table(&self, operands: &Operands) -> Result<Vec<usize>> {
        let Operand::Name(table) = operands.operand(1)? else { return operands.error("expected a table of labels") };
        let visible = self.scopes.iter().rev();
        let Some(labels) = visible.filter_map(|scope| self.labels.tables.get(&(*scope, table.clone()))).next() else {
            return operands.error(format!("there is no table `{table}`"));
        };
        labels.iter().map(|label| self.find_label(operands, label)).collect()
    }

    /// `call (results), target, (arguments)`; results and arguments may be missing.
    fn call(&self, operands: &Operands) -> Result<Action> {
        let written = &operands.instruction.operands;
        let (results, rest) = match written.as_slice() {
            [Operand::List(results), rest @ ..] => (results.as_slice(), rest),
            rest => (&[][..], rest),
        };
        let (Some(target), arguments) = (rest.first(), rest.get(1)) else { return operands.error("calls nothing") };
        let arguments = match arguments {
            Some(Operand::List(arguments)) => arguments.as_slice(),
            _ => &[],
        };
        let target = match target {
            Operand::Name(name) => match (self.module.find(name), self.names.find(name)) {
                (Some(Entity::Function(index)), _) => Callee::Direct(index),
                (_, Some(Entity::Register { index, .. })) => Callee::Indirect(Source::Register(index)),
                _ => return operands.error(format!("`{name}` is no function")),
            },
            other => return operands.error(format!("cannot call {other:?}")),
        };
        let slots = |list: &[Operand]| list.iter().map(|operand| self.slot(operands, operand)).collect::<Result<_>>();
        Ok(Action::Call(Call { target, arguments: slots(arguments)?, results: slots(results)? }))
    }

    fn slot(&self, operands: &Operands, operand: &Operand) -> Result<Slot> {
        let Operand::Name(name) = operand else { return operands.error(format!("cannot pass {operand:?}")) };
        match self.names.find(name) {
            Some(Entity::FrameParam { offset, size }) => Ok(Slot { offset, size }),
            _ => operands.error(format!("`{name}` is no .param variable")),
        }
    }
}
