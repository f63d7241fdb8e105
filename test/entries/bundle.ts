/** Bundles an entry of the package for a browser, from source. */

import { join } from 'node:path';
import { rolldown } from 'rolldown';

export type Bundle = Readonly<{
  /** A script that leaves the entry's exports in the global `entry`. */
  code: string;
  /** Modules that the bundle leaves outside: of Node, or packages that are not there. */
  outside: readonly string[];
}>;

export async function bundleEntry(name: string): Promise<Bundle> {
  const outside = new Set<string>();
  const build = await rolldown({
    input: join(import.meta.dirname, '..', '..', 'src', 'entries', `${name}.ts`),
    platform: 'browser',
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
