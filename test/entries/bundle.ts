/** Bundles an entry of the package for a browser, from source, with the shaders as a built package has them. */

import { join } from 'node:path';
import { rolldown } from 'rolldown';
import { shaderTexts } from '../../bin/shader-texts.mjs';

const SOURCE = join(import.meta.dirname, '..', '..', 'src');
const SHADER_FILES = join(SOURCE, 'kernels', 'device', 'shader-files.ts');

export type Bundle = Readonly<{
  /** A script that leaves the entry's exports in the global `entry`. */
  code: string;
  /** Modules that the bundle leaves outside: of Node, or packages that are not there. */
  outside: readonly string[];
}>;

export async function bundleEntry(name: string): Promise<Bundle> {
  const outside = new Set<string>();
  const build = await rolldown({
    input: join(SOURCE, 'entries', `${name}.ts`),
    platform: 'browser',
    plugins: [{ name: 'shaders', load: (id) => (id === SHADER_FILES ? shaderTexts(SOURCE) : null) }],
    external: (id) => {
      if (!id.startsWith('node:')) return false;
      outside.add(id);
      return true;
    },
    onLog: (_, { message, exporter, id }) => outside.add(exporter ?? id ?? message),
  });
  try {
    const { output } = await build.generate({ format: 'iife', name: 'entry' });
    return { code: output[0].code, outside: [...outside] };
  } finally {
    await build.close();
  }
}
