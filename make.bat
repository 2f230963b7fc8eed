@echo off
rem make demo           images from the bundled model, on the CPU, into output\
rem make test           ruff, pyright, then every test
rem make test-portable  the golden tests again with other CPU kernels and numbers of threads
rem make fuzz           damaged and hostile files by the thousand
rem make bench-gpu      a table of what this machine's GPU makes of it
rem
rem Each first makes the environment that it needs, in .venv. What follows goes to the sampler, pytest, the fuzzer or the table:
rem   make demo --classes 3 --seeds 0-7
rem Set PYTHON, VENV, TORCH or PIP_ARGS before it, as in the Makefile:
rem   set PYTHON=py -3.12
setlocal
cd /d "%~dp0"
if not defined PYTHON set "PYTHON=python"
if not defined VENV set "VENV=.venv"
if not defined TORCH set "TORCH=torch==2.13.0"
set "VENV_PYTHON=%VENV%\Scripts\python.exe"

set "GOAL=%~1"
set "PACKAGE="
if "%GOAL%"=="demo" set "PACKAGE=."
for %%G in (test test-portable fuzz bench-gpu) do if "%GOAL%"=="%%G" set "PACKAGE=.[dev]"
if not defined PACKAGE goto help

set "REST="
:collect
shift
if "%~1"=="" goto collected
set REST=%REST% %1
goto collect
:collected

if not exist "%VENV_PYTHON%" (
  %PYTHON% -c "import sys; sys.exit(sys.version_info < (3, 10))" || goto old
  %PYTHON% -m venv "%VENV%" || exit /b 1
)
"%VENV_PYTHON%" -m pip install --quiet --disable-pip-version-check %PIP_ARGS% "%TORCH%" -e "%PACKAGE%" || exit /b 1

if "%GOAL%"=="test" goto test
if "%GOAL%"=="test-portable" goto portable
if "%GOAL%"=="fuzz" goto fuzz
if "%GOAL%"=="bench-gpu" goto bench
"%VENV_PYTHON%" -m pixeldit_core sample --device cpu --out output%REST%
exit /b %ERRORLEVEL%

:test
"%VENV_PYTHON%" -m ruff check . || exit /b 1
"%VENV_PYTHON%" -m ruff format --check . || exit /b 1
"%VENV_PYTHON%" -m pyright --pythonpath "%VENV_PYTHON%" || exit /b 1
"%VENV_PYTHON%" -m pytest -n auto --maxprocesses 4 --dist loadfile%REST%
exit /b %ERRORLEVEL%

:portable
"%VENV_PYTHON%" tests\portable.py%REST%
exit /b %ERRORLEVEL%

:fuzz
set "PYTHONPATH=tests"
"%VENV_PYTHON%" -m fuzz.run --hostile || exit /b 1
"%VENV_PYTHON%" -m fuzz.run --cases 20000%REST% || exit /b 1
"%VENV_PYTHON%" -m fuzz.run --families --cases 2000%REST%
exit /b %ERRORLEVEL%

:bench
set "PYTHONPATH=tests"
"%VENV_PYTHON%" benchmarks\gpu.py%REST%
exit /b %ERRORLEVEL%

:old
echo Python 3.10 or newer is needed. Name one: set PYTHON=py -3.12
exit /b 1

:help
echo make demo           images from the bundled model, on the CPU, into output\
echo make test           ruff, pyright, then every test
echo make test-portable  the golden tests again with other CPU kernels and numbers of threads
echo make fuzz           damaged and hostile files by the thousand
echo make bench-gpu      a table of what this machine's GPU makes of it
exit /b 1
