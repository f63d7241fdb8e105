/** Reads `.wgsl` files, and puts a kernel's constants in front of them. */

import { readFileSync } from 'node:fs';

const cache = new Map<string, string>();

/** Text of `<name>.wgsl`, below `kernels/`. */
function load(name: string): string {
  let text = cache.get(name);
  if (text === undefined) {
    text = readFileSync(new URL(`../${name}.wgsl`, import.meta.url), 'utf8');
    cache.set(name, text);
  }
  return text;
}

const DIRECTIVE = /^(?:enable|diagnostic|requires)\b[^;]*;\s*$/gm;

/**
 * A complete module of several files: their directives, which WGSL wants first, the constants as `const NAME: u32 =
 * …u;` and `const NAME: f32 = …f;`, then the files in order.
 */
export function wgslModule(
  names: readonly string[],
  constants: Readonly<Record<string, number>>,
  floats: Readonly<Record<string, number>> = {},
): string {
  const texts = names.map(load);
  const directives = texts.flatMap((text) => text.match(DIRECTIVE) ?? []);
  return [
    ...directives.map((line) => line.trim()),
    ...Object.entries(constants).map(([constant, value]) => `const ${constant}: u32 = ${value}u;`),
    ...Object.entries(floats).map(([constant, value]) => `const ${constant}: f32 = ${Math.fround(value)}f;`),
    '',
    ...texts.map((text) => text.replace(DIRECTIVE, '')),
  ].join('\n');
}

/** A kernel of one file below `kernels/model/`, with the shared functions of `mix.wgsl` before it. */
export function wgslSource(name: string, constants: Readonly<Record<string, number>>): string {
  return wgslModule(['model/mix/mix', `model/${name}`], constants);
}
