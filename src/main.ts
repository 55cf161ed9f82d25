import { enter } from './enter.ts';

await enter(async () => (await import('./start.ts')).main());
