/** A WGSL module of several shader files, with a kernel's constants in front of them. */

import type { Kernel } from '../../contract/device.ts';

const DIRECTIVE = /^(?:enable|diagnostic|requires)\b[^;]*;\s*$/gm;

/**
 * A complete module: the files' directives, which WGSL wants first, the constants as `const NAME: u32 = …u;` and `const
 * NAME: f32 = …f;`, then the files in order.
 */
export function wgslModule(
  files: readonly string[],
  constants: Readonly<Record<string, number>>,
  floats: Readonly<Record<string, number>> = {},
): Kernel['wgsl'] {
  return (read) => {
    const texts = files.map(read);
    const directives = texts.flatMap((text) => text.match(DIRECTIVE) ?? []);
    return [
      ...directives.map((line) => line.trim()),
      ...Object.entries(constants).map(([name, value]) => `const ${name}: u32 = ${value}u;`),
      ...Object.entries(floats).map(([name, value]) => `const ${name}: f32 = ${Math.fround(value)}f;`),
      '',
      ...texts.map((text) => text.replace(DIRECTIVE, '')),
    ].join('\n');
  };
}
