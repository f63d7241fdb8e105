/** The commands, and what becomes of an error of theirs. */

import { Command, CommanderError } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import { packageVersion } from './environment.ts';

const BAD_USAGE = 2;

/**
 * Each command is loaded when it is called, or when all of them are to be listed: no command waits for the packages of
 * another.
 */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  bench: async () => (await import('./bench/command.ts')).benchCommand(),
  devices: async () => (await import('./devices.ts')).devicesCommand(),
  conformance: async () => (await import('./conformance.ts')).conformanceCommand,
  fuzz: async () => (await import('./fuzz.ts')).fuzzCommand(),
  cluster: async () => (await import('./cluster/command.ts')).clusterCommand(),
  matrix: async () => (await import('./matrix.ts')).matrixCommand(),
  work: async () => (await import('./work.ts')).workCommand(),
  merge: async () => (await import('./merge.ts')).mergeCommand(),
  kernels: async () => (await import('./kernels/command.ts')).kernelsCommand(),
  inspect: async () => (await import('./inspect/command.ts')).inspectCommand(),
  compare: async () => (await import('./compare/command.ts')).compareCommand(),
  placement: async () => (await import('./placement/command.ts')).placementCommand(),
  engine: async () => (await import('./engine/command.ts')).engineCommand(),
  serve: async () => (await import('./serve.ts')).serveCommand(),
  proxy: async () => (await import('./proxy.ts')).proxyCommand(),
};

/**
 * Runs a command line without the name of the program. Resolves with the exit code: 0 = ok, 1 = a law was broken or a
 * check failed, 2 = bad usage or the run was not possible. Commands write to stdout, errors go to stderr.
 */
export async function runProgram(args: readonly string[]): Promise<number> {
  const program = new Command('routed-experts')
    .description(
      'A small serving-engine core that returns the experts each token was routed to, and every known way to get them',
    )
    .version(packageVersion() ?? 'unknown');
  const called = args[0] ?? '';
  for (const name of Object.hasOwn(commands, called) ? [called] : Object.keys(commands)) {
    program.addCommand(await commands[name]!());
  }
  throwInsteadOfExit(program);
  try {
    await program.parseAsync(args, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return exitCodeOf(error);
  }
}

/** Wrong usage ends with our exit code, not commander's. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride().showHelpAfterError('(see --help)');
  command.commands.forEach(throwInsteadOfExit);
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : BAD_USAGE;
  if (error instanceof RoutedExpertsError && error.code !== 'INVARIANT') {
    console.error(`error: ${error.message}`);
    return BAD_USAGE;
  }
  console.error(error);
  return 1;
}
