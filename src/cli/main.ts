/** The command line. Exit codes: 0 = ok, 1 = a law was broken or a check failed, 2 = bad usage or the run was not possible. */

import { Command, CommanderError } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import { benchCommand } from './bench/command.ts';
import { conformanceCommand } from './conformance.ts';
import { devicesCommand } from './devices.ts';
import { fuzzCommand } from './fuzz.ts';
import { kernelsCommand } from './kernels/command.ts';
import { matrixCommand } from './matrix.ts';
import { serveCommand } from './serve.ts';

const BAD_USAGE = 2;

const program = new Command('routed-experts')
  .description(
    'A small serving-engine core that returns the experts each token was routed to, and every known way to get them',
  )
  .showHelpAfterError('(see --help)')
  .addCommand(benchCommand())
  .addCommand(devicesCommand())
  .addCommand(fuzzCommand())
  .addCommand(matrixCommand())
  .addCommand(kernelsCommand())
  .addCommand(conformanceCommand)
  .addCommand(serveCommand());

throwInsteadOfExit(program);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}

/** Wrong usage ends with our exit code, not commander's. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride();
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
