#!/usr/bin/env node
import { enter } from './enter.ts';

await enter(async () => (await import('./command-line.ts')).runCommand());
