<#
.SYNOPSIS
Unpacks a release of the edge agent and Windows' Python, and makes the service or switches it. docs/edge.md: Windows.

.EXAMPLE
.\install.ps1 -Release 0.1.0 -Python C:\Downloads\python-3.12.10-embed-amd64.zip
Beside this script lies the bundle, unpacked. Run as an administrator.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][string]$Release,
    [Parameter(Mandatory = $true)][string]$Python,
    [string]$Base = (Join-Path $env:ProgramFiles 'Dicomward'),
    [string]$State = (Join-Path $env:ProgramData 'Dicomward\edge')
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$here = Split-Path -Parent $MyInvocation.MyCommand.Path
$target = Join-Path $Base "releases\$Release"
if (Test-Path $target) { throw "$target is there already; remove it first, or take another release" }

# Below Program Files everybody may read and run, and only administrators may write: the service can't change its own code.
New-Item -ItemType Directory -Force -Path (Join-Path $target 'python') | Out-Null
Copy-Item -Recurse -Path (Join-Path $here "$Release\lib") -Destination $target
Expand-Archive -Path $Python -DestinationPath (Join-Path $target 'python')

$program = Join-Path $target 'python\python.exe'
$signature = Get-AuthenticodeSignature -FilePath $program
if ($signature.Status -ne 'Valid' -or $signature.SignerCertificate.Subject -notmatch 'O=Python Software Foundation') {
    Remove-Item -Recurse -Force -Path $target
    throw "$Python holds no python.exe that the Python Software Foundation has signed"
}

$action = 'install'
if (Get-Service -Name 'dicomward-edge' -ErrorAction SilentlyContinue) { $action = 'switch' }
Copy-Item -Force -Path (Join-Path $here 'edge_service.py') -Destination $Base
& $program (Join-Path $Base 'edge_service.py') $action $Release --base $Base --state $State
exit $LASTEXITCODE
