/** `routed-experts inspect verify`: metrics and placements against recorded answers. */

import { Command } from 'commander';
import { goldenFiles } from '../../kernels/verify.ts';
import { verifyFile } from './verify.ts';

/** Differences that are shown of a file. */
const MOST_SHOWN = 5;

export function verifyCommand(): Command {
  return new Command('verify')
    .description('Compare every metric and placement with recorded answers')
    .argument('<dir>', 'directory of answers (*.json)')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', '\nExit code: 0 all passed, 1 a file differs or cannot be read, 2 nothing to verify.')
    .action((directory: string, _flags: unknown, command: Command) => {
      // A flag that the parent has, too, is the parent's.
      const { json } = command.optsWithGlobals<{ json?: boolean }>();
      const files = goldenFiles(directory).map(verifyFile);
      const failed = files.filter(({ differences }) => differences.length > 0).length;
      const passed = files.length - failed;
      if (json === true) process.stdout.write(`${JSON.stringify({ passed, failed, files })}\n`);
      else {
        for (const { name, kind, remark, differences } of files) {
          const about = [kind, remark].filter((text) => text !== '').join(', ');
          const found = differences.length === 0 ? '' : `, ${differences.length} differences`;
          process.stdout.write(`${differences.length === 0 ? 'ok  ' : 'FAIL'} ${name}: ${about}${found}\n`);
          for (const difference of differences.slice(0, MOST_SHOWN)) process.stdout.write(`     ${difference}\n`);
        }
        process.stdout.write(`${passed} passed, ${failed} failed\n`);
      }
      if (failed > 0) process.exitCode = 1;
    });
}
