// warm.js - the agent's Node: an interpreter that waits for its code.
// SPDX-License-Identifier: Apache-2.0
//
// Runs as `node -e`, once, with a flag that lets code use import(). Descriptor 4 is the channel to the agent, where it
// tells its pid and gets one job: a length and strings that end with NUL
// (user id, group id, other groups, home, working directory, code, variables).
// It answers with stage and errno, or with one byte right before the code
// begins. Descriptor 5 is a library that reseeds OpenSSL when it is loaded.
(() => {
	const fs = require('fs');
	const path = require('path');
	const vm = require('vm');
	const v8 = require('v8');
	const { pathToFileURL } = require('url');
	const Module = require('module');
	const { errno } = require('os').constants;
	const { randomInt } = require('crypto');
	const AT_CWD = 3;

	for (const name of ['Module', 'SourceTextModule', 'SyntheticModule'])
		delete vm[name]; // of that flag

	function readExactly(n) {
		const data = Buffer.alloc(n);
		for (let at = 0; at < n;) {
			const got = fs.readSync(4, data, at, n - at);
			if (got === 0)
				process.reallyExit(0);
			at += got;
		}
		return data;
	}

	function numbers(...values) {
		const data = Buffer.alloc(4 * values.length);
		values.forEach((v, i) => data.writeUInt32LE(v, 4 * i));
		return data;
	}

	function enter(home, cwd) {
		try {
			process.chdir(home);
		} catch {
			process.chdir('/');
		}
		if (cwd !== '')
			process.chdir(cwd);
		// What `node -e` made of the directory where it was started.
		module.filename = path.join(process.cwd(), '[eval]');
		module.paths = Module._nodeModulePaths(process.cwd());
	}

	function setEnvironment(entries) {
		for (const name of Object.keys(process.env))
			delete process.env[name];
		for (const entry of entries) {
			const at = entry.indexOf('=');
			process.env[entry.slice(0, at)] = entry.slice(at + 1);
		}
	}

	// Two copies of the machine must not draw the same. The library ends
	// this process when it cannot do its work.
	function refreshRandomness() {
		const library = { exports: {} };
		try {
			process.dlopen(library, '/proc/self/fd/5');
		} catch (error) {
			// It is no module of Node's, only loaded.
			if (!/self-register/.test(error.message))
				throw error;
		}
		fs.closeSync(5);
		v8.setFlagsFromString(`--random-seed=${randomInt(1, 2 ** 31)}`);
		Math.random();
		v8.setFlagsFromString('--random-seed=0');
	}

	async function importFrom(base, name) {
		if (/^\.{0,2}\//.test(name))
			return import(new URL(name, base).href);
		try {
			return await import(name);
		} catch (error) {
			if (error.code !== 'ERR_MODULE_NOT_FOUND')
				throw error;
			const found = Module.createRequire(base).resolve(name);
			return import(pathToFileURL(found).href);
		}
	}

	// What most programs need, loaded and compiled; nothing is drawn or
	// opened yet.
	for (const name of ['net', 'tty', 'util', 'events', 'stream'])
		require(name);
	require('util').format('%s %o', 'a', { a: [1, 'b'] });
	vm.runInThisContext('0', { filename: '[eval]' });
	fs.writeSync(4, numbers(process.pid));
	const size = readExactly(4).readUInt32LE();
	const [, , , home, cwd, code, ...env] =
		readExactly(size).toString().slice(0, -1).split('\0');
	try {
		enter(home, cwd);
	} catch (error) {
		fs.writeSync(4, numbers(AT_CWD, errno[error.code]));
		process.reallyExit(127);
	}
	setEnvironment(env);
	refreshRandomness();
	process.execArgv = ['-e', code];
	process._eval = code;
	const base = pathToFileURL(`${process.cwd()}/`).href;
	fs.writeSync(4, 'r');
	fs.closeSync(4);
	vm.runInThisContext(code, {
		filename: '[eval]',
		displayErrors: true,
		importModuleDynamically: (name) => importFrom(base, name),
	});
})();
